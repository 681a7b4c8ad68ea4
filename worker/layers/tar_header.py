# SPDX-License-Identifier: Apache-2.0
"""One 512-byte header block, taken apart: V7, ustar, GNU and star.

Source: POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar 1.35 manual, "Basic Tar Format"; star(5). Where they
leave a choice, Go's archive/tar decides, because containerd, Docker and umoci read with it.
"""

import struct
import zlib
from functools import lru_cache
from typing import NamedTuple

from worker.layers.refusal import Refusal
from worker.layers.tar_numbers import parse_field, parse_repeated_field

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)

_FIELDS = struct.Struct("100s24s12s12s8sc100s8s64x16s155s12s")
_CHECKSUM_AS_SUMMED = 8 * ord(" ")
_USTAR_MAGIC = b"ustar\0"
_STAR_TRAILER = b"tar\0"
_STAR_PREFIX_BYTES = 131


class Header(NamedTuple):
    """The fields of a header; strings end before their first NUL.

    Attributes:
        name: With the prefix of ustar and star.
        mode: As written, type bits and all.
        size: As written; may be negative.
        mtime: Seconds, as written.
        typeflag: One byte.
        linkname: As written.
        device: Major and minor number; (0, 0) in V7, which has none.
        block: The block itself.
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    typeflag: bytes
    linkname: bytes
    device: tuple[int, int]
    block: bytes


def parse_header(block: bytes) -> Header:
    """Take a header block apart.

    Raises:
        Refusal: Its checksum is wrong or a number is none.
    """
    name, owner, size, mtime, checksum, typeflag, linkname, magic, device, prefix, rest = _FIELDS.unpack(block)
    _check_sum(block, checksum)
    mode, uid, gid = _parse_owner(owner)
    return Header(
        _prefix(magic, prefix, rest) + _text(name),
        mode,
        uid,
        gid,
        parse_field(size),
        parse_repeated_field(mtime),
        typeflag,
        _text(linkname),
        _parse_device(device) if magic.startswith(b"ustar") else (0, 0),
        block,
    )


@lru_cache(maxsize=1024)
def _parse_owner(fields: bytes) -> tuple[int, int, int]:
    """Read mode, uid and gid at once: they are alike in most headers."""
    return parse_field(fields[:8]), parse_field(fields[8:16]), parse_field(fields[16:])


@lru_cache(maxsize=1024)
def _parse_device(fields: bytes) -> tuple[int, int]:
    return parse_field(fields[:8]), parse_field(fields[8:])


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _prefix(magic: bytes, prefix: bytes, rest: bytes) -> bytes:
    """Return the directory part of the name with its slash; GNU tar keeps times in its place, V7 nothing."""
    if prefix[0] == 0 or not magic.startswith(_USTAR_MAGIC):
        return b""
    if rest.endswith(_STAR_TRAILER):
        prefix = prefix[:_STAR_PREFIX_BYTES]
    return _text(prefix) + b"/"


def _check_sum(block: bytes, checksum: bytes) -> None:
    """Compare the sum of all bytes, taken as unsigned or, as some old writers did, as signed."""
    claimed = parse_field(checksum)
    others = _sum(block[:256]) + _sum(block[256:]) - _sum(checksum) + _CHECKSUM_AS_SUMMED
    if claimed == others:
        return
    high_bytes = sum(byte >= 0x80 for byte in block[:148] + block[156:])  # noqa: PLR2004 - the sign bit
    if claimed != others - 256 * high_bytes:
        raise Refusal("a header's checksum is wrong")


def _sum(content: bytes) -> int:
    """Add up to 256 bytes: the low half of Adler-32 is their sum modulo 65521, ten times faster than `sum`."""
    return zlib.adler32(content, 0) & 0xFFFF
