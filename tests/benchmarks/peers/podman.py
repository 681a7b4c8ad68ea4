# SPDX-License-Identifier: Apache-2.0
"""Podman with its overlay driver: `pull`, `create`, `mount`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.images import Published
from tests.benchmarks.measuring.processes import Commands, Usage
from tests.benchmarks.peers.ready import Peer
from tests.support.needs import missing_programs, missing_root


class Podman:
    """Podman with directories of its own; it has no daemon."""

    def __init__(self, directory: Path) -> None:
        self._commands = Commands()
        self._environment = {"CONTAINERS_STORAGE_CONF": str(_storage_conf(directory)), "TMPDIR": str(directory)}
        self._podman: list[str | Path] = ["podman", "--events-backend", "none", "--cgroup-manager", "cgroupfs"]

    def provision(self, image: Published) -> Path:
        """The container is never started; `true` need not be there."""
        self._run("pull", "--quiet", "--tls-verify=false", image.reference)
        container_id = self._run("create", "--network", "none", "--pull", "never", image.reference, "true")
        return Path(self._run("mount", container_id))

    def _run(self, *arguments: str) -> str:
        return self._commands.run([*self._podman, *arguments], **self._environment).strip()

    def usage(self) -> Usage:
        """Of all commands."""
        return self._commands.usage

    def peak_rss_bytes(self) -> None:
        """No daemon."""


def _storage_conf(directory: Path) -> Path:
    path = directory / "storage.conf"
    path.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{directory}/root"\nrunroot = "{directory}/runroot"\n')
    return path


@contextmanager
def running(directory: Path) -> Iterator[Podman]:
    """Give Podman a directory; nothing is started."""
    directory.mkdir(exist_ok=True)
    yield Podman(directory)


PODMAN = Peer(name="podman", missing=lambda: missing_root() or missing_programs("podman"), start=running)
