# SPDX-License-Identifier: Apache-2.0
"""Undo a blob's compression: gzip, zstd or none, told by the first bytes as every runtime does.

Output comes in chunks of bounded size whatever the ratio, so a bomb costs time, which the limits cut, but no memory.
Source: image-spec v1.1.1, layer.md, "+gzip Media Types" and "+zstd Media Types"; RFC 1952, 2.2; RFC 8878, 3.1.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import IO, cast

import zstandard
from isal import igzip_lib

from worker.layers.refusal import Refusal
from worker.settings import MIB

_OUTPUT_BYTES = MIB
_INPUT_BYTES = MIB // 2
"""Large pieces: between any two the threads of a pull hand over the interpreter's lock and wake each other."""
_FIRST_INPUT_BYTES = 64 * 1024
"""Of a member. Its end copies the rest of the piece it is in, and a hostile blob is nothing but members' ends."""
_MAGIC_BYTES = 6
_GZIP_ERROR = cast("type[Exception]", igzip_lib.IsalError)  # Its stub takes the class for an instance.


def inflate(chunks: Iterator[bytes], *, max_window_bytes: int) -> Iterator[bytes]:
    """Return the uncompressed bytes of `chunks`; never an empty chunk.

    Takes all of `chunks`, also what follows the end of the compressed data.

    Raises:
        Refusal: While iterating: the data are corrupt, cut off, or compressed with something else.
    """
    magic, chunks = _peek(chunks, _MAGIC_BYTES)
    if magic.startswith(b"\x1f\x8b"):
        return _gunzip(chunks)
    if magic.startswith(b"\x28\xb5\x2f\xfd") or _is_skippable_frame(magic):
        return _unzstd(chunks, max_window_bytes=max_window_bytes)
    for prefix, name in ((b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")):
        if magic.startswith(prefix):
            raise Refusal(f"compressed with {name}; gzip and zstd are supported")
    return filter(None, chunks)


def _peek(chunks: Iterator[bytes], count: int) -> tuple[bytes, Iterator[bytes]]:
    """Return the first `count` bytes, fewer at the end, and all chunks as they were or joined."""
    head = b""
    for chunk in chunks:
        head = head + chunk if head else chunk
        if len(head) >= count:
            break
    return head[:count], chain((head,), chunks)


def _is_skippable_frame(magic: bytes) -> bool:
    return magic[1:4] == b"\x2a\x4d\x18" and magic[0] & 0xF0 == 0x50  # noqa: PLR2004 - RFC 8878, 3.1.2


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Inflate any number of gzip members, with zero bytes between and after them as gzip(1) allows."""
    source = _Pieces(chunks)
    while source.skip_zeros():
        yield from _gunzip_member(source)


def _gunzip_member(source: "_Pieces") -> Iterator[bytes]:
    member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    count = _FIRST_INPUT_BYTES
    while not member.eof:
        piece = source.take(count) if member.needs_input else b""
        if member.needs_input and not piece:
            raise Refusal("the gzip data are cut off")
        inflated = _explained(_GZIP_ERROR, member.decompress, piece, _OUTPUT_BYTES)
        if inflated:
            yield inflated
        count = min(2 * count, _INPUT_BYTES)
    source.give_back(len(member.unused_data))


class _Pieces:
    """Chunks taken in pieces, without copying."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = filter(None, chunks)
        self._chunk = b""
        self._offset = 0

    def take(self, count: int) -> memoryview:
        """Return the next bytes, at most `count`; none at the end."""
        if self._offset == len(self._chunk):
            self._chunk, self._offset = next(self._chunks, b""), 0
        piece = memoryview(self._chunk)[self._offset : self._offset + count]
        self._offset += len(piece)
        return piece

    def give_back(self, count: int) -> None:
        """Undo the taking of the last bytes of the last piece."""
        self._offset -= count

    def skip_zeros(self) -> bool:
        """Pass over zero bytes; false at the end."""
        while piece := self.take(_FIRST_INPUT_BYTES):
            if rest := piece if piece[0] else bytes(piece).lstrip(b"\0"):
                self.give_back(len(rest))
                return True
        return False


def _unzstd(chunks: Iterator[bytes], *, max_window_bytes: int) -> Iterator[bytes]:
    """Inflate any number of zstd frames, skippable ones among them.

    NOTE: The library does not tell a last frame that is cut off; the tar's end mark and the DiffID do.
    """
    decompressor = zstandard.ZstdDecompressor(max_window_size=max_window_bytes)
    source = _ChunkFile(chunks)
    with decompressor.stream_reader(cast("IO[bytes]", source), read_across_frames=True) as frames:
        while inflated := _explained(zstandard.ZstdError, frames.read, _OUTPUT_BYTES):
            yield inflated
    for _ in chunks:
        raise Refusal("data follow the zstd frames")


class _ChunkFile:
    """Chunks as the library reads them: it takes what it is given, whatever it asked for."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = filter(None, chunks)

    def read(self, _count: int = -1) -> bytes:
        return next(self._chunks, b"")


def _explained(failure: type[Exception], inflate_some: Callable[..., bytes], *arguments: object) -> bytes:
    """Call the library and turn its way of saying "corrupt" into ours."""
    try:
        return inflate_some(*arguments)
    except failure as error:
        raise Refusal(f"the compressed data are corrupt: {error}") from error
