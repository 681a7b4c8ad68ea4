# SPDX-License-Identifier: Apache-2.0
"""From a tar entry to the bytes of its EROFS inode: the inode itself, its attributes, and where its data are.

An encoded inode does not depend on where it will lie. Three things are filled in once the whole image is known: the
count of hard links, the device of each chunk, and what a directory holds.
"""

import stat

from worker.layers.attributes import IMPLIED_MODE, IMPLIED_MTIME_NS
from worker.layers.erofs.format import (
    BLOCK_BITS,
    CHUNK_INDEX,
    CHUNK_WITH_INDEX,
    CHUNKED,
    INLINE,
    INODE,
    INODE_SIZE,
    INODE_SIZE_OFFSET,
    INODE_UNION_OFFSET,
    MAX_CHUNK_BITS,
    PLAIN,
    blocks_of,
)
from worker.layers.erofs.xattrs import encode_xattrs
from worker.layers.names import MAX_PATH_BYTES
from worker.layers.refusal import Refusal
from worker.layers.tar_entry import EntryType, TarEntry

TAR_DEVICE = 1
BLOB_DEVICE = 2
"""How an inode of one layer names the layer's own files; merging the layers numbers them anew."""

_TYPE_BITS = {
    EntryType.REGULAR: stat.S_IFREG,
    EntryType.SYMLINK: stat.S_IFLNK,
    EntryType.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryType.BLOCK_DEVICE: stat.S_IFBLK,
    EntryType.DIRECTORY: stat.S_IFDIR,
    EntryType.FIFO: stat.S_IFIFO,
}
_SYMLINK_MODE = 0o777
_NANOSECONDS = 10**9
_MAX_BLOCK = 2**32 - 2
"""The largest number means a hole."""


def encode_file(entry: TarEntry, *, device: int, offset: int) -> bytes:
    """Return a regular file whose data lie on `device` from `offset` on, which is a multiple of the block.

    Raises:
        Refusal: It cannot be described.
    """
    size = entry.size_bytes
    if size == 0:
        return _encode(entry, PLAIN)
    first, blocks = offset >> BLOCK_BITS, blocks_of(size)
    if first + blocks > _MAX_BLOCK:
        raise Refusal("the file lies beyond what a device can hold")
    chunk_bits = min((blocks - 1).bit_length(), MAX_CHUNK_BITS)
    inode = _encode(entry, CHUNKED, union=chunk_bits | CHUNK_WITH_INDEX, size=size)
    # Attributes end on a multiple of four, the indexes begin on one of eight.
    inode += bytes(-len(inode) % 8)
    for start in range(first, first + blocks, 1 << chunk_bits):
        inode += CHUNK_INDEX.pack(0, device, start)
    return inode


def encode_special(entry: TarEntry) -> bytes:
    """Return a symbolic link, a device or a fifo.

    Raises:
        Refusal: It cannot be described.
    """
    if entry.type is EntryType.SYMLINK:
        if len(entry.linkname) > MAX_PATH_BYTES:
            raise Refusal("the target of the link is too long")
        return _encode(entry, INLINE, size=len(entry.linkname)) + entry.linkname
    return _encode(entry, PLAIN, union=_device_number(*entry.device))


def encode_directory(entry: TarEntry) -> bytes:
    """Return a directory without its content.

    Raises:
        Refusal: It cannot be described.
    """
    return _encode(entry, PLAIN)


def implied_directory() -> bytes:
    """Return a directory that a layer needs but does not list, without its content."""
    seconds, nanoseconds = divmod(IMPLIED_MTIME_NS, _NANOSECONDS)
    return INODE.pack(PLAIN, 0, stat.S_IFDIR | IMPLIED_MODE, 0, 0, 0, 0, 0, 0, seconds, nanoseconds, 1)


def with_devices_from(inode: bytes, first_device: int) -> bytes:
    """Return an encoded inode of a layer whose files are the image's devices after the first `first_device` ones."""
    if inode[0] != CHUNKED or not first_device:
        return inode
    rebased = bytearray(inode)
    for offset in _chunk_offsets(inode):
        high, device, start = CHUNK_INDEX.unpack_from(inode, offset)
        CHUNK_INDEX.pack_into(rebased, offset, high, device + first_device, start)
    return bytes(rebased)


def _encode(entry: TarEntry, layout: int, *, union: int = 0, size: int = 0) -> bytes:
    xattr_count, xattrs = encode_xattrs(entry) if entry.xattrs else (0, b"")
    seconds, nanoseconds = divmod(entry.mtime_ns, _NANOSECONDS)
    mode = _TYPE_BITS[entry.type] | (_SYMLINK_MODE if entry.type is EntryType.SYMLINK else entry.mode)
    owner = (entry.uid, entry.gid)
    return INODE.pack(layout, xattr_count, mode, 0, size, union, 0, *owner, seconds, nanoseconds, 1) + xattrs


def _device_number(major: int, minor: int) -> int:
    """Return the number as `new_encode_dev` of kernel 6.12, include/linux/kdev_t.h, makes it."""
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def _chunk_offsets(inode: bytes) -> range:
    """Say where the chunk indexes of an encoded regular file begin: they stand at its end."""
    (size,) = INODE_SIZE.unpack_from(inode, INODE_SIZE_OFFSET)
    chunk_bits = inode[INODE_UNION_OFFSET] & MAX_CHUNK_BITS
    count = -(-blocks_of(size) >> chunk_bits)
    return range(len(inode) - count * CHUNK_INDEX.size, len(inode), CHUNK_INDEX.size)
