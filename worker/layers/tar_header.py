# SPDX-License-Identifier: Apache-2.0
"""One 512-byte header block, taken apart: V7, ustar, GNU and star.

Source: POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar 1.35 manual, "Basic Tar Format"; star(5). Where they
leave a choice, Go's archive/tar decides, because containerd, Docker and umoci read with it.
"""

import struct
from typing import NamedTuple

from worker.layers.refusal import Refusal
from worker.layers.tar_numbers import parse_field, parse_repeated_field

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)

_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_CHECKSUM = slice(148, 156)
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
    fields = _FIELDS.unpack(block)
    name, mode, uid, gid, size, mtime, checksum, typeflag, linkname, magic, _, _, major, minor, prefix, rest = fields
    _check_sum(block, checksum)
    return Header(
        name=_text(_prefix(magic, prefix, rest)) + _text(name),
        mode=parse_repeated_field(mode),
        uid=parse_repeated_field(uid),
        gid=parse_repeated_field(gid),
        size=parse_field(size),
        mtime=parse_field(mtime),
        typeflag=typeflag,
        linkname=_text(linkname),
        device=(parse_repeated_field(major), parse_repeated_field(minor)) if magic.startswith(b"ustar") else (0, 0),
        block=block,
    )


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
    others = sum(block) - sum(block[_CHECKSUM]) + _CHECKSUM_AS_SUMMED
    if claimed == others:
        return
    high_bytes = sum(byte >= 0x80 for byte in block[:148] + block[156:])  # noqa: PLR2004 - the sign bit
    if claimed != others - 256 * high_bytes:
        raise Refusal("a header's checksum is wrong")
