# SPDX-License-Identifier: Apache-2.0
"""From a header and the records before it to a `TarEntry`.

Where header and records disagree the records win, the size first of all: a reader that believes the header's size looks
for the next header inside this entry's data (CVE-2025-62518, "TARmageddon").
"""

from dataclasses import dataclass
from typing import NamedTuple

from worker.layers.refusal import Refusal
from worker.layers.tar_entry import NO_XATTRS, EntryType, Extent, TarEntry
from worker.layers.tar_header import Header
from worker.layers.tar_numbers import checked_id, checked_size, parse_decimal, parse_time, seconds_to_time
from worker.layers.tar_pax import (
    GID,
    LINKPATH,
    MTIME,
    PATH,
    SIZE,
    SPARSE_NAME,
    UID,
    Records,
    xattrs_of,
)
from worker.layers.tar_sparse import SparseMaps, checked_extents

_V7_REGULAR = b"\0"
_GNU_SPARSE = b"S"
_TYPES = {
    b"0": EntryType.REGULAR,
    _V7_REGULAR: EntryType.REGULAR,
    b"7": EntryType.REGULAR,
    _GNU_SPARSE: EntryType.REGULAR,
    b"1": EntryType.HARD_LINK,
    b"2": EntryType.SYMLINK,
    b"3": EntryType.CHARACTER_DEVICE,
    b"4": EntryType.BLOCK_DEVICE,
    b"5": EntryType.DIRECTORY,
    b"6": EntryType.FIFO,
}
_LINKS = frozenset({EntryType.HARD_LINK, EntryType.SYMLINK})
_DEVICES = frozenset({EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE})
_MODE_BITS = 0o7777
_MAX_MAJOR = 2**12 - 1
_MAX_MINOR = 2**20 - 1


@dataclass(slots=True)
class Extensions:
    """What stands before an entry's own header, each at most once; None for what does not.

    Attributes:
        records: Of its PAX header.
        name: GNU long name.
        linkname: GNU long link name.
    """

    records: Records | None = None
    name: bytes | None = None
    linkname: bytes | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing stands before the header."""
        return self.records is None and self.name is None and self.linkname is None


class _Content(NamedTuple):
    """Where an entry's bytes are and what they make; see `TarEntry`."""

    size_bytes: int
    data_offset: int
    data_bytes: int
    extents: tuple[Extent, ...] | None = None


def make_entry(header: Header, extensions: Extensions, records: Records, maps: SparseMaps) -> TarEntry:
    """Return the entry of a header.

    Args:
        header: The entry's own.
        extensions: What stands before it.
        records: What is in force of all PAX headers.
        maps: Reads a sparse map that follows the header.

    Raises:
        Refusal: Something in it is malformed, out of range or not supported.
        Excess: A sparse map is too long.
    """
    name = _chosen(extensions.name, records.get(PATH), otherwise=header.name)
    linkname = _chosen(extensions.linkname, records.get(LINKPATH), otherwise=header.linkname)
    entry_type = _type_of(header.typeflag, name)
    if entry_type in _LINKS and not linkname:
        raise Refusal("a link without a target")
    content = _locate(entry_type, header, records, maps)
    # In the order of the fields: to name them takes as long as all the rest.
    return TarEntry(
        records.get(SPARSE_NAME, name) if content.extents is not None else name,
        entry_type,
        header.mode & _MODE_BITS,
        checked_id(parse_decimal(records[UID]) if UID in records else header.uid),
        checked_id(parse_decimal(records[GID]) if GID in records else header.gid),
        parse_time(records[MTIME]) if MTIME in records else seconds_to_time(header.mtime),
        content.size_bytes,
        linkname if entry_type in _LINKS else b"",
        _checked_device(header.device) if entry_type in _DEVICES else (0, 0),
        xattrs_of(records) if records else NO_XATTRS,
        content.data_offset,
        content.data_bytes,
        content.extents,
    )


def _type_of(typeflag: bytes, name: bytes) -> EntryType:
    entry_type = _TYPES.get(typeflag)
    if entry_type is None:
        raise Refusal(f"entries of type {typeflag!r} are not supported")
    if typeflag == _V7_REGULAR and name.endswith(b"/"):
        return EntryType.DIRECTORY
    return entry_type


def _chosen(gnu: bytes | None, pax: bytes | None, *, otherwise: bytes) -> bytes:
    """Return the one name an entry has: readers differ on which long form goes first, so two must be the same."""
    if gnu is not None and pax is not None and gnu != pax:
        raise Refusal("an entry has two long names")
    long_name = pax if gnu is None else gnu
    name = otherwise if long_name is None else long_name
    if b"\0" in name:
        raise Refusal("a name holds a NUL, at which other readers would cut it")
    return name


def _locate(entry_type: EntryType, header: Header, records: Records, maps: SparseMaps) -> _Content:
    """Say where the data are. Only regular files have any, whatever size the others state, as in Go's reader."""
    stored = checked_size(parse_decimal(records[SIZE]) if SIZE in records else header.size)
    begin = maps.position
    if entry_type is not EntryType.REGULAR:
        return _Content(0, begin, 0)
    if header.typeflag == _GNU_SPARSE:
        size, extents = maps.read_old_gnu(header.block)
        return _sparse(size, extents, offset=maps.position, data_bytes=stored)
    sparse = maps.read_pax(records) if records else None
    if sparse is None:
        return _Content(stored, begin, stored)
    return _sparse(*sparse, offset=maps.position, data_bytes=stored - (maps.position - begin))


def _sparse(size: int, extents: tuple[Extent, ...], *, offset: int, data_bytes: int) -> _Content:
    return _Content(size, offset, data_bytes, checked_extents(extents, size_bytes=size, data_bytes=data_bytes))


def _checked_device(device: tuple[int, int]) -> tuple[int, int]:
    major, minor = device
    if not (0 <= major <= _MAX_MAJOR and 0 <= minor <= _MAX_MINOR):
        raise Refusal(f"device number {major}:{minor} is out of range")
    return device
