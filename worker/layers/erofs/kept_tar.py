# SPDX-License-Identifier: Apache-2.0
"""`KeptTar`: the uncompressed tar, written to disk as it passes by."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.layers.files import write_data
from worker.linux.writeback import start_writeback

_WRITEBACK_BYTES = 8 << 20


class KeptTar:
    """A new file that takes all chunks.

    What was written starts on its way to the disk while more is coming, so that an fsync at the end finds little left
    to wait for.

    Attributes:
        size_bytes: Written so far.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.size_bytes = 0
        self._started_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def keeping(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Hand on the chunks, each of them once it is written."""
        for chunk in chunks:
            write_data(self._descriptor, iter((memoryview(chunk),)))
            self.size_bytes += len(chunk)
            if self.size_bytes - self._started_bytes >= _WRITEBACK_BYTES:
                start_writeback(self._descriptor, self._started_bytes, self.size_bytes - self._started_bytes)
                self._started_bytes = self.size_bytes
            yield chunk
