# SPDX-License-Identifier: Apache-2.0
"""`ByteStream`: exact reads over chunks that come only once and only forward."""

from collections.abc import Iterator

from worker.layers.refusal import Refusal


class ByteStream:
    """Reads, skips and hands out what chunks hold, copying as little as possible.

    Memory: one chunk, and what `read` is asked for.

    Attributes:
        position: Bytes taken so far, which is the offset of the next one.
    """

    __slots__ = ("_chunk", "_chunks", "_offset", "position")

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.position = 0
        self._chunks = chunks
        self._chunk = b""
        self._offset = 0

    def read(self, count: int) -> bytes:
        """Take exactly `count` bytes.

        Raises:
            Refusal: The chunks end before.
        """
        taken = self.read_available(count)
        if len(taken) != count:
            raise _truncated()
        return taken

    def read_available(self, count: int) -> bytes:
        """Take `count` bytes, or fewer at the end of the chunks, none after it."""
        end = self._offset + count
        if end <= len(self._chunk):
            taken = self._chunk[self._offset : end]
            self._offset = end
            self.position += count
            return taken
        return b"".join(self._take(count))

    def views(self, count: int) -> Iterator[memoryview]:
        """Hand out the next `count` bytes in pieces, none of them copied.

        Raises:
            Refusal: While iterating: the chunks end before.
        """
        for view in self._take(count):
            count -= len(view)
            yield view
        if count:
            raise _truncated()

    def skip(self, count: int) -> None:
        """Pass over exactly `count` bytes.

        Raises:
            Refusal: The chunks end before.
        """
        end = self._offset + count
        if end <= len(self._chunk):
            self._offset = end
            self.position += count
            return
        for _ in self.views(count):
            pass

    def drain(self) -> None:
        """Pass over everything that is left, so that what checks the chunks on their way has seen them all."""
        self.position += len(self._chunk) - self._offset
        self._chunk, self._offset = b"", 0
        for chunk in self._chunks:
            self.position += len(chunk)

    def _take(self, count: int) -> Iterator[memoryview]:
        while count and self._fill():
            view = memoryview(self._chunk)[self._offset : self._offset + count]
            self._offset += len(view)
            self.position += len(view)
            count -= len(view)
            yield view

    def _fill(self) -> bool:
        """Make sure that the current chunk has a byte left; false at the end."""
        while self._offset == len(self._chunk):
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._chunk, self._offset = chunk, 0
        return True


def _truncated() -> Refusal:
    return Refusal("the archive is cut off")
