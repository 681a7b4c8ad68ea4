# SPDX-License-Identifier: Apache-2.0
"""`TarEntry`: one member of a layer's tar, whatever dialect it was written in."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

NO_XATTRS: Mapping[bytes, bytes] = MappingProxyType({})


class EntryType(StrEnum):
    """What an entry makes. A sparse file is REGULAR."""

    REGULAR = "regular file"
    HARD_LINK = "hard link"
    SYMLINK = "symbolic link"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    DIRECTORY = "directory"
    FIFO = "fifo"


class Extent(NamedTuple):
    """A stretch of a sparse file that is not a hole, in bytes of the file."""

    offset: int
    length: int


class TarEntry(NamedTuple):
    """One member. A tuple, since a layer has many and a frozen dataclass is made five times slower.

    Attributes:
        name: As written, neither normalised nor checked; no NUL in it.
        type: What it makes.
        mode: The twelve permission bits.
        uid: 0 to 2**32 - 2.
        gid: 0 to 2**32 - 2.
        mtime_ns: Nanoseconds since the epoch, exact; may be negative.
        size_bytes: Of the file, holes included; 0 for all that is no regular file.
        linkname: Target of a symbolic link, or name of the entry a hard link joins; as written.
        device: Major and minor number; (0, 0) for all that is no device.
        xattrs: By full name, in no order.
        data_offset: Where the data begin in the uncompressed tar; a multiple of 512.
        data_bytes: How many there are, without padding; `size_bytes` unless the file is sparse.
        extents: Where the data of a sparse file belong, in order and without overlap, all of `data_bytes`; None for a
            file without holes.
    """

    name: bytes
    type: EntryType
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size_bytes: int
    linkname: bytes
    device: tuple[int, int]
    xattrs: Mapping[bytes, bytes]
    data_offset: int
    data_bytes: int
    extents: tuple[Extent, ...] | None
