# SPDX-License-Identifier: Apache-2.0
"""`Blob`: files that cannot be read out of the tar where they lie, written out one after the other."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.layers.files import write_extents
from worker.layers.tar_entry import Extent

_ALIGNMENT_BYTES = 4096


class Blob:
    """A file that is made when the first content comes; holes stay holes on disk.

    Attributes:
        is_used: Whether there is any content.
    """

    def __init__(self, path: Path) -> None:
        self.is_used = False
        self._path = path
        self._descriptor = -1
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_used:
            os.close(self._descriptor)

    def append(self, data: Iterator[memoryview], extents: tuple[Extent, ...], *, size_bytes: int) -> int:
        """Write a sparse file and return where it begins.

        Args:
            data: As many bytes as all extents together.
            extents: Where in the file they belong.
            size_bytes: Of the file.
        """
        if not self.is_used:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
            self.is_used = True
        begin = self._end
        write_extents(self._descriptor, data, (Extent(begin + offset, length) for offset, length in extents))
        self._end = begin + size_bytes + -size_bytes % _ALIGNMENT_BYTES
        os.ftruncate(self._descriptor, self._end)
        return begin

    def sync(self) -> int:
        """Make the content survive power loss, and return the bytes it takes on disk."""
        if not self.is_used:
            return 0
        os.fsync(self._descriptor)
        return os.fstat(self._descriptor).st_blocks * 512
