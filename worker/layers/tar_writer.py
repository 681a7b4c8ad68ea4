# SPDX-License-Identifier: Apache-2.0
"""From a `TarEntry` to a tar member, byte for byte the same every time: ustar, and PAX for what that cannot say.

The reader's counterpart: what it makes of these bytes is the entry again.

Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar 1.35 manual, "PAX Format,
Version 0.1", for sparse files.
"""

import base64
import struct
from collections.abc import Iterator
from urllib.parse import quote_from_bytes

from worker.layers.tar_entry import EntryType, TarEntry
from worker.layers.tar_header import BLOCK
from worker.layers.tar_pax import GID as GID_KEY
from worker.layers.tar_pax import LINKPATH, MTIME, PATH, SIZE, SPARSE_MAP, SPARSE_SIZE
from worker.layers.tar_pax import UID as UID_KEY

END_MARK = bytes(2 * BLOCK)

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_TYPEFLAGS = {
    EntryType.REGULAR: b"0",
    EntryType.HARD_LINK: b"1",
    EntryType.SYMLINK: b"2",
    EntryType.CHARACTER_DEVICE: b"3",
    EntryType.BLOCK_DEVICE: b"4",
    EntryType.DIRECTORY: b"5",
    EntryType.FIFO: b"6",
}
_TEXT_BYTES = 100
_MAX_ID = 8**7 - 1
_MAX_NUMBER = 8**11 - 1
_CHECKSUM = slice(148, 156)
_SECOND_NS = 10**9


def member_head(entry: TarEntry) -> bytes:
    """Return all of a member that stands before its data."""
    records = b"".join(_record(key, value) for key, value in _records(entry))
    extension = b""
    if records:
        extension = _header(b"PaxHeaders", typeflag=b"x", size=len(records)) + records + padding(len(records))
    return extension + _header(
        entry.name,
        typeflag=_TYPEFLAGS[entry.type],
        size=entry.data_bytes,
        mode=entry.mode,
        ids=(entry.uid, entry.gid),
        mtime=entry.mtime_ns // _SECOND_NS,
        linkname=entry.linkname,
        device=entry.device,
    )


def padding(size_bytes: int) -> bytes:
    """Return what fills the last block of so many bytes."""
    return bytes(-size_bytes % BLOCK)


def _records(entry: TarEntry) -> Iterator[tuple[bytes, bytes]]:
    """Yield what ustar cannot say of the entry, in a fixed order."""
    for key, text in ((PATH, entry.name), (LINKPATH, entry.linkname)):
        if len(text) > _TEXT_BYTES:
            yield key, text
    for key, number, largest in (
        (UID_KEY, entry.uid, _MAX_ID),
        (GID_KEY, entry.gid, _MAX_ID),
        (SIZE, entry.data_bytes, _MAX_NUMBER),
    ):
        if number > largest:
            yield key, b"%d" % number
    if entry.mtime_ns % _SECOND_NS or not 0 <= entry.mtime_ns // _SECOND_NS <= _MAX_NUMBER:
        yield MTIME, _seconds(entry.mtime_ns)
    if entry.extents is not None:
        yield SPARSE_SIZE, b"%d" % entry.size_bytes
        yield SPARSE_MAP, b",".join(b"%d,%d" % extent for extent in entry.extents)
    for name in sorted(entry.xattrs):
        yield _xattr_record(name, entry.xattrs[name])


def _xattr_record(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Return an extended attribute's record; libarchive's form can say also a name in which there is an equals sign."""
    if b"=" in name:
        return b"LIBARCHIVE.xattr." + quote_from_bytes(name).encode(), base64.b64encode(value)
    return b"SCHILY.xattr." + name, value


def _seconds(nanoseconds: int) -> bytes:
    seconds, rest = divmod(abs(nanoseconds), _SECOND_NS)
    return b"%s%d.%09d" % (b"-" if nanoseconds < 0 else b"", seconds, rest)


def _record(key: bytes, value: bytes) -> bytes:
    """Return `<length> <key>=<value>`, the length counting its own digits."""
    tail = b" %s=%s\n" % (key, value)
    length = len(tail) + len(str(len(tail)))
    length = len(tail) + len(str(length))
    return b"%d%s" % (length, tail)


def _header(  # noqa: PLR0913 - the fields of a header
    name: bytes,
    *,
    typeflag: bytes,
    size: int,
    mode: int = 0o644,
    ids: tuple[int, int] = (0, 0),
    mtime: int = 0,
    linkname: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """Return a header block; where a value does not fit, PAX has said it and the field is cut or zero."""
    block = bytearray(
        _HEADER.pack(
            name,
            _octal(mode, 8),
            *(_octal(number, 8) for number in ids),
            _octal(size, 12),
            _octal(mtime, 12),
            b" " * 8,
            typeflag,
            linkname,
            b"ustar\00000",
            b"",
            b"",
            *(_octal(number, 8) for number in device),
            b"",
        )
    )
    block[_CHECKSUM] = b"%06o\0 " % sum(block)
    return bytes(block)


def _octal(number: int, width: int) -> bytes:
    digits = width - 1
    return b"%0*o\0" % (digits, number if 0 <= number < 8**digits else 0)
