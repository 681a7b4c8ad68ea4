# SPDX-License-Identifier: Apache-2.0
"""`skopeo copy` to an OCI layout and `umoci unpack` of it: a rootfs without any store."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.images import Published
from tests.benchmarks.measuring.processes import Commands, Usage
from tests.benchmarks.peers.ready import Peer
from tests.support.needs import missing_programs, missing_root


class SkopeoAndUmoci:
    """Two commands."""

    def __init__(self, directory: Path) -> None:
        self._commands = Commands()
        self._directory = directory

    def provision(self, image: Published) -> Path:
        """Copy, unpack."""
        layout, bundle = self._directory / "layout", self._directory / "bundle"
        source, target = f"docker://{image.reference}", f"oci:{layout}:it"
        self._commands.run(["skopeo", "copy", "--quiet", "--src-tls-verify=false", source, target])
        self._commands.run(["umoci", "unpack", "--image", f"{layout}:it", bundle])
        return bundle / "rootfs"

    def usage(self) -> Usage:
        """Of both."""
        return self._commands.usage

    def peak_rss_bytes(self) -> None:
        """No daemon."""


@contextmanager
def running(directory: Path) -> Iterator[SkopeoAndUmoci]:
    """Give them a directory; nothing is started."""
    directory.mkdir(exist_ok=True)
    yield SkopeoAndUmoci(directory)


SKOPEO = Peer(
    name="skopeo + umoci", missing=lambda: missing_root() or missing_programs("skopeo", "umoci"), start=running
)
