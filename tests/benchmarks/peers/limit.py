# SPDX-License-Identifier: Apache-2.0
"""The limit: `curl | igzip -d > file` for each layer, three at a time. Nothing verified, unpacked or made durable."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.images import Published
from tests.benchmarks.measuring.processes import Commands, Usage
from tests.benchmarks.peers.ready import Peer
from tests.support.needs import missing_programs

_FETCH = 'curl --silent --show-error --fail "$0/$1" | igzip --decompress > "$1"'
PARALLEL = "3"


class Limit:
    """A pipe for each layer."""

    def __init__(self, directory: Path) -> None:
        self._commands = Commands()
        self._directory = directory

    def provision(self, image: Published) -> Path:
        """Fetch and inflate the layers; the answer is no root filesystem."""
        repository = image.reference.partition("/")[2].rpartition(":")[0]
        url = f"http://{image.reference.partition('/')[0]}/v2/{repository}/blobs"
        in_shell = ["sh", "-c", _FETCH, url]
        script = 'cd "$0" && printf "%s\\n" "$layers" | exec xargs -n 1 -P "$parallel" "$@"'
        self._commands.run(
            ["sh", "-c", script, self._directory, *in_shell], layers="\n".join(image.layers), parallel=PARALLEL
        )
        return self._directory

    def usage(self) -> Usage:
        """Of all pipes."""
        return self._commands.usage

    def peak_rss_bytes(self) -> None:
        """No daemon."""


@contextmanager
def running(directory: Path) -> Iterator[Limit]:
    """Give the pipes a directory; nothing is started."""
    directory.mkdir(exist_ok=True)
    yield Limit(directory)


LIMIT = Peer(
    name="curl | igzip -d",
    missing=lambda: missing_programs("curl", "igzip", "xargs"),
    start=running,
    makes_rootfs=False,
)
