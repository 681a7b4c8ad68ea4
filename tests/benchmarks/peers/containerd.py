# SPDX-License-Identifier: Apache-2.0
"""containerd with its overlayfs snapshotter, driven by `ctr`: `image pull`, `snapshots prepare`, mount."""

import hashlib
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.images import Published
from tests.benchmarks.measuring.processes import Commands, Usage, peak_rss_bytes, usage_of
from tests.benchmarks.peers.ready import Peer
from tests.support.needs import missing_programs, missing_root
from tests.support.ports import wait_for_server

_CONFIG = """\
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs"]
[grpc]
  address = "{socket}"
"""


class Containerd:
    """A daemon of its own."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path, socket: Path) -> None:
        self._process = process
        self._directory = directory
        self._ctr = ("ctr", "--address", str(socket))
        self._commands = Commands()

    def pull(self, image: Published) -> None:
        """Fetch and unpack."""
        self._commands.run([*self._ctr, "image", "pull", "--plain-http", image.reference])

    def prepare(self, image: Published, key: str) -> Path:
        """Make a writable snapshot of a pulled image, and mount it."""
        target = self._directory / "mounts" / key
        target.mkdir(parents=True)
        prepare: list[str | Path] = [
            *self._ctr,
            "snapshots",
            "prepare",
            "--target",
            target,
            key,
            chain_id(image.diff_ids),
        ]
        # A mount's options must fit into a page, which the paths of 100 layers do not; containerd itself, where it
        # mounts, also goes to the snapshots' directory and names them from there.
        snapshots_dir = self._directory / "root/io.containerd.snapshotter.v1.overlayfs/snapshots"
        mount = self._commands.run(prepare).replace(f"{snapshots_dir}/", "")
        self._commands.run(["sh", "-e", "-c", f"cd {shlex.quote(str(snapshots_dir))}; {mount}"])
        return target

    def remove(self, key: str) -> None:
        """Undo `prepare`."""
        target = self._directory / "mounts" / key
        self._commands.run(["umount", target])
        self._commands.run([*self._ctr, "snapshots", "remove", key])
        target.rmdir()

    def provision(self, image: Published) -> Path:
        """All of it."""
        self.pull(image)
        return self.prepare(image, "cold")

    def usage(self) -> Usage:
        """Of the daemon and of the commands."""
        return usage_of([self._process.pid]) + self._commands.usage

    def peak_rss_bytes(self) -> int:
        """Of the daemon."""
        return peak_rss_bytes([self._process.pid])


def chain_id(diff_ids: Sequence[str]) -> str:
    """Name a stack of layers. Source: image-spec v1.1, config.md, "Layer ChainID"."""
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = f"sha256:{hashlib.sha256(f'{chain} {diff_id}'.encode()).hexdigest()}"
    return chain


@contextmanager
def running(directory: Path) -> Iterator[Containerd]:
    """Run a daemon in `directory` for the context's time."""
    directory.mkdir(exist_ok=True)
    config_path, log_path, socket = directory / "config.toml", directory / "log", directory / "socket"
    config_path.write_text(_CONFIG.format(directory=directory, socket=socket))
    with log_path.open("wb") as log:
        process = subprocess.Popen(["containerd", "--config", config_path], stdout=log, stderr=log)
    try:
        wait_for_server(process, lambda: _answers(socket), log_path=log_path)
        yield Containerd(process, directory, socket)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _answers(socket: Path) -> bool:
    return subprocess.run(["ctr", "--address", socket, "version"], capture_output=True, check=False).returncode == 0


CONTAINERD = Peer(
    name="containerd",
    missing=lambda: missing_root() or missing_programs("containerd", "ctr"),
    start=running,
)
