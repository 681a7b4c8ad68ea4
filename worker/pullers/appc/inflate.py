# SPDX-License-Identifier: Apache-2.0
"""Undo an ACI's compression: bzip2 and xz, which only Appc has, beside those of layers.

Output comes in chunks of bounded size, as in `worker.layers.inflate`. Source: appc spec 0.8.11, aci.md, "Image
Archives".
"""

import bz2
import lzma
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Protocol

from worker.layers.inflate import inflate
from worker.layers.refusal import Refusal
from worker.settings import MIB

_MAGIC_BYTES = 6
_INPUT_BYTES = 64 * 1024
_OUTPUT_BYTES = 256 * 1024
_XZ_MEMORY_BYTES = 80 * MIB
"""`xz -9` asks for 65 MiB."""


class _Decompressor(Protocol):
    """What the modules of the standard library have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


_make_xz = partial(lzma.LZMADecompressor, format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
_MAKERS: tuple[tuple[bytes, Callable[[], _Decompressor]], ...] = (
    (b"\xfd7zXZ\0", _make_xz),
    (b"BZh", bz2.BZ2Decompressor),
)


def inflate_aci(chunks: Iterator[bytes], *, max_window_bytes: int) -> Iterator[bytes]:
    """Return the uncompressed bytes of `chunks`, told by the first bytes; never an empty chunk.

    Raises:
        Refusal: While iterating: the data are corrupt or cut off, or ask for too much memory.
    """
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= _MAGIC_BYTES:
            break
    whole = chain((head,), chunks)
    make = next((make for magic, make in _MAKERS if head.startswith(magic)), None)
    yield from inflate(whole, max_window_bytes=max_window_bytes) if make is None else _inflate(whole, make)


def _inflate(chunks: Iterator[bytes], make: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """Inflate any number of streams, with zero bytes between and after them as xz pads them."""
    decompressor: _Decompressor | None = None
    for piece in _pieces(chunks):
        rest = piece
        while rest or (decompressor is not None and not decompressor.needs_input):
            if decompressor is None:
                rest = rest.lstrip(b"\0")
                if not rest:
                    break
                decompressor = make()
            inflated = _decompressed(decompressor, rest)
            rest = b""
            if inflated:
                yield inflated
            if decompressor.eof:
                rest, decompressor = decompressor.unused_data, None
    if decompressor is not None:
        raise Refusal("the compressed data are cut off")


def _decompressed(decompressor: _Decompressor, data: bytes) -> bytes:
    try:
        return decompressor.decompress(data, _OUTPUT_BYTES)
    except (lzma.LZMAError, OSError, ValueError) as error:  # bz2 says OSError.
        raise Refusal(f"the compressed data are corrupt: {error}") from error


def _pieces(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield small pieces: at each stream's end the rest of a piece is copied, and a hostile file is all ends."""
    for chunk in chunks:
        for start in range(0, len(chunk), _INPUT_BYTES):
            yield chunk[start : start + _INPUT_BYTES]
