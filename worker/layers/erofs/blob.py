# SPDX-License-Identifier: Apache-2.0
"""`Blob`: files that cannot be read out of the tar where they lie, written out one after the other."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.layers.files import write_extents
from worker.layers.tar_entry import Extent

_BLOCK_BYTES = 4096


class Blob:
    """A file that is made when the first content comes; holes stay holes on disk.

    Attributes:
        is_used: Whether there is any content, and so a file.
        size_bytes: Of that file, with its holes; 0 without one, and only then.
        disk_bytes: What the content takes on disk, rounded to blocks.
    """

    def __init__(self, path: Path) -> None:
        self.is_used = False
        self.size_bytes = 0
        self.disk_bytes = 0
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_used:
            os.close(self._descriptor)

    def append(self, data: Iterator[memoryview], extents: tuple[Extent, ...], *, size_bytes: int) -> int:
        """Write a sparse file, unless it is empty, and return where it begins.

        Args:
            data: As many bytes as all extents together.
            extents: Where in the file they belong.
            size_bytes: Of the file.
        """
        begin = self.size_bytes
        if size_bytes == 0:
            return begin
        if not self.is_used:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
            self.is_used = True
        write_extents(self._descriptor, data, (Extent(begin + offset, length) for offset, length in extents))
        self.size_bytes = begin + _rounded(size_bytes)
        self.disk_bytes += sum(_rounded(length) for _, length in extents)
        os.ftruncate(self._descriptor, self.size_bytes)
        return begin


def _rounded(size_bytes: int) -> int:
    return size_bytes + -size_bytes % _BLOCK_BYTES
