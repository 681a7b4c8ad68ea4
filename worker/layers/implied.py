# SPDX-License-Identifier: Apache-2.0
"""`ImpliedDirs`: the directories a layer needs but does not list."""

from worker.layers.refusal import Excess

_ROOT = b""
_OVERHEAD_BYTES = 64
"""About what a path costs in memory beside its bytes."""


class ImpliedDirs:
    """Remembers which directories were made only because something below them was listed.

    A *ghost* is one that only whiteouts have asked for so far. If the layer then hides the directory itself, the ghost
    must go, or an empty directory would stand where the image has none.

    Args:
        max_bytes: Bound on the memory this takes.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._paths = {_ROOT}
        self._ghosts = {_ROOT}
        self._max_bytes = max_bytes
        self._bytes = 0

    def add(self, path: bytes, *, is_ghost: bool) -> None:
        """Note a directory that was made without being listed.

        Raises:
            Excess: They are too many.
        """
        self._bytes += len(path) + _OVERHEAD_BYTES
        if self._bytes > self._max_bytes:
            raise Excess("bytes of unlisted directories' names", self._max_bytes)
        self._paths.add(path)
        if is_ghost:
            self._ghosts.add(path)
        else:
            self._ghosts.discard(path)
            self.fill(_parent(path))

    def list_entry(self, path: bytes) -> None:
        """Note that the layer lists this directory."""
        self._paths.discard(path)
        self._ghosts.discard(path)
        self.fill(_parent(path))

    def fill(self, path: bytes) -> None:
        """Note that the directory holds something of the layer: it and those above it are ghosts no more.

        What is no ghost has none above it, so the way up ends there.
        """
        while path in self._ghosts:
            self._ghosts.remove(path)
            path = _parent(path)

    def is_ghost(self, path: bytes) -> bool:
        """Tell whether only whiteouts have asked for the directory, if there is one."""
        return path in self._ghosts

    def paths(self) -> list[bytes]:
        """Return all that were noted and not listed since, parents first; some may have been replaced since."""
        return sorted(self._paths)

    def ghosts(self) -> list[bytes]:
        """Return the ghosts, parents first; some may have been replaced since."""
        return sorted(self._ghosts - {_ROOT})


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]
