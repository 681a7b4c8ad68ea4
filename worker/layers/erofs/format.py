# SPDX-License-Identifier: Apache-2.0
"""The on-disk structures of EROFS that we write; little-endian, as in kernel 6.12, fs/erofs/erofs_fs.h."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

BLOCK_BITS = 9
BLOCK_BYTES = 1 << BLOCK_BITS
"""That of tar, so that whatever begins on a tar block can be mapped where it lies."""

SLOT_BYTES = 32
"""Inodes begin at multiples of this; an inode's number (nid) is its offset in these units."""

INODE = struct.Struct("<HHHHQIIIIqII16x")
"""struct erofs_inode_extended: format, xattr count, mode, reserved; size; union, ino, uid, gid; mtime, nsec, links.

The union holds the first block of plain data, the device number, or the chunk format.
"""
INODE_UNION = struct.Struct("<I")
INODE_UNION_OFFSET = 16
INODE_SIZE = struct.Struct("<Q")
INODE_SIZE_OFFSET = 8
INODE_LINKS = struct.Struct("<I")
INODE_LINKS_OFFSET = 44

PLAIN = 1
"""i_format: an extended inode whose data are whole blocks in this file, or which has none."""
INLINE = 1 | 2 << 1
"""i_format: the data follow the inode and its attributes, within one block."""
CHUNKED = 1 | 4 << 1
"""i_format: chunk indexes follow, each of a run of blocks on some device."""

CHUNK_INDEX = struct.Struct("<HHI")
"""struct erofs_inode_chunk_index: upper half of the block (48-bit layouts only), device, block."""
CHUNK_WITH_INDEX = 0x20
"""Chunk format: 8-byte indexes; the low five bits add to the block size's to give the chunk's."""
MAX_CHUNK_BITS = 31

XATTR_HEADER = struct.Struct("<IB7x")
"""struct erofs_xattr_ibody_header: name filter, unused without its feature bit, and count of shared attributes."""
XATTR_ENTRY = struct.Struct("<BBH")
"""struct erofs_xattr_entry: length of the name without its prefix, the prefix, length of the value."""

DIRENT = struct.Struct("<QHBx")
"""struct erofs_dirent: nid, offset of the name in its block, type."""

FILE_TYPES = {0o01: 5, 0o02: 3, 0o04: 2, 0o06: 4, 0o10: 1, 0o12: 7}
"""A directory entry's type by the upper four bits of the mode: fifo, character, directory, block, regular, link."""

_SUPER_OFFSET = 1024
_SUPER = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23x")
_MAGIC = 0xE0F5E1E2
_CHECKSUM_OFFSET = 4
_COMPAT_CHECKSUM = 0x1
_COMPAT_MTIME = 0x2
_INCOMPAT_CHUNKED = 0x4
_INCOMPAT_DEVICES = 0x8
_DEVICE_COUNT_OFFSET = 86
_DEVICE = struct.Struct("<64sII56x")
_DEVICES_OFFSET = _SUPER_OFFSET + _SUPER.size
MAX_DEVICES = 16_000
"""With more, the root behind the table of devices would get a number beyond 16 bits."""

_CRC32C_POLYNOMIAL = 0x82F63B78


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A file that holds data, given to the kernel when mounting.

    Attributes:
        tag: For people: at most 64 bytes.
        size_bytes: Of the file.
    """

    tag: bytes
    size_bytes: int


def blocks_of(size_bytes: int) -> int:
    """Return how many blocks hold so many bytes."""
    return -(-size_bytes >> BLOCK_BITS)


def xattr_bytes(inode: bytes) -> int:
    """Return the length of the attributes that follow an inode."""
    count: int = inode[2] | inode[3] << 8
    return XATTR_HEADER.size + 4 * (count - 1) if count else 0


def head_bytes(device_count: int) -> int:
    """Return how much of the image comes before the first inode."""
    return _DEVICES_OFFSET + _DEVICE.size * device_count


def encode_head(*, devices: Sequence[Device], root_nid: int, inodes: int, total_bytes: int, uuid: bytes) -> bytes:
    """Return what comes before the first inode: an empty boot block, the superblock, the table of devices.

    The metadata begin at block 0, so that a nid is an offset in the file.
    """
    superblock = _SUPER.pack(
        _MAGIC,
        0,
        _COMPAT_CHECKSUM | _COMPAT_MTIME,
        BLOCK_BITS,
        0,
        root_nid,
        inodes,
        0,
        0,
        blocks_of(total_bytes),
        0,
        0,
        uuid,
        b"",
        _INCOMPAT_CHUNKED | (_INCOMPAT_DEVICES if devices else 0),
        0,
        len(devices),
        _DEVICES_OFFSET // _DEVICE.size,
        0,
        0,
        0,
        0,
        0,
    )
    table = b"".join(_DEVICE.pack(device.tag, blocks_of(device.size_bytes), 0) for device in devices)
    return bytes(_SUPER_OFFSET) + superblock + table


def image_device_count(image: bytes) -> int:
    """Return how many devices an image says it has."""
    offset = _SUPER_OFFSET + _DEVICE_COUNT_OFFSET
    return int.from_bytes(image[offset : offset + 2], "little")


def set_checksum(image: bytearray) -> None:
    """Put the superblock's checksum, over the rest of the block it is in, which holds inodes too."""
    content = image[_SUPER_OFFSET : _SUPER_OFFSET + BLOCK_BYTES]
    offset = _SUPER_OFFSET + _CHECKSUM_OFFSET
    image[offset : offset + 4] = _crc32c(content).to_bytes(4, "little")


def _crc32c(content: bytes | bytearray) -> int:
    """Return the Castagnoli checksum without the final inversion, as the kernel's crc32c() does."""
    checksum = 0xFFFFFFFF
    for byte in content:
        checksum ^= byte
        for _ in range(8):
            checksum = checksum >> 1 ^ (_CRC32C_POLYNOMIAL if checksum & 1 else 0)
    return checksum
