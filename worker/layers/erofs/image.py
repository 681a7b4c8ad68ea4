# SPDX-License-Identifier: Apache-2.0
"""From the merged tree to the one file of metadata that the kernel mounts.

::

    boot block, superblock, table of devices                     format.py
    the root's inode, the inodes of its children by name,
    those of their children, and so on, breadth first; blocks of large directories and long links in between

An inode begins on a slot of 32 bytes and may cross blocks; data that follow it (a small directory, the target of a
link) may not. The same tree gives the same bytes.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Sequence

from worker.errors import BackendUnsupported
from worker.layers.erofs.format import (
    BLOCK_BYTES,
    DIRENT,
    FILE_TYPES,
    INLINE,
    INODE,
    INODE_LINKS,
    INODE_LINKS_OFFSET,
    INODE_SIZE,
    INODE_SIZE_OFFSET,
    INODE_UNION,
    INODE_UNION_OFFSET,
    MAX_DEVICES,
    PLAIN,
    SLOT_BYTES,
    Device,
    encode_head,
    head_bytes,
    set_checksum,
    xattr_bytes,
)
from worker.layers.erofs.tree import Directory, Linked, Node

_MAX_INLINE_BYTES = BLOCK_BYTES - SLOT_BYTES
"""What follows an inode fits into one block wherever the inode begins, if need be after some empty slots."""
_SELF_AND_PARENT = [b".", b".."]
_DIRECTORY_TYPE = FILE_TYPES[0o04]


def encode_image(root: Directory, devices: Sequence[Device]) -> bytearray:
    """Return the image of a tree. Cost: takes the tree apart on the way.

    Args:
        root: Of the merged tree, without whiteouts.
        devices: In the order in which the tree numbers them, from 1 on.

    Raises:
        BackendUnsupported: There are too many devices, or the image outgrows 32-bit block numbers.
    """
    if len(devices) > MAX_DEVICES:
        raise BackendUnsupported(backend="erofs", reason=f"an image of {len(devices)} devices is too many for it")
    writer = _Writer(head_bytes(len(devices)))
    root_nid = writer.write_tree(root)
    image = writer.finish()
    tags = hashlib.sha256(b"\0".join(device.tag for device in devices))
    head = encode_head(
        devices=devices,
        root_nid=root_nid,
        inodes=writer.inodes,
        total_bytes=len(image),
        uuid=tags.digest()[:16],
    )
    image[: len(head)] = head
    set_checksum(image)
    return image


class _Pending:
    """A directory whose inode has its place and whose entries are still to be written.

    Attributes:
        directory: Itself.
        nid: Of its inode.
        parent_nid: Of the directory it is in; of the root, its own.
        blocks: Its names, by block, in order.
        position: Where its first block is.
    """

    __slots__ = ("blocks", "directory", "nid", "parent_nid", "position")

    def __init__(self, directory: Directory, blocks: list[list[bytes]]) -> None:
        self.directory = directory
        self.blocks = blocks
        self.nid = self.parent_nid = self.position = 0


class _Writer:
    """Appends inodes and data.

    Attributes:
        inodes: How many were written.
    """

    def __init__(self, head_bytes: int) -> None:
        self.inodes = 0
        self._image = bytearray(head_bytes)
        self._pending: deque[_Pending] = deque()
        self._link_nids: dict[Linked, int] = {}
        self._link_counts: Counter[Linked] = Counter()

    def write_tree(self, root: Directory) -> int:
        """Write all directories from the root on, and return its nid."""
        root_nid = self._place_directory(root, parent_nid=None)
        while self._pending:
            self._write_entries(self._pending.popleft())
        return root_nid

    def finish(self) -> bytearray:
        """Fill in how many names each file has; end on a whole block."""
        for linked, nid in self._link_nids.items():
            INODE_LINKS.pack_into(self._image, nid * SLOT_BYTES + INODE_LINKS_OFFSET, self._link_counts[linked])
        self._align(BLOCK_BYTES)
        return self._image

    def _write_entries(self, pending: _Pending) -> None:
        """Place all children of a directory, then list them in its blocks."""
        children, nid = pending.directory.children, pending.nid
        targets = {b".": (nid, _DIRECTORY_TYPE), b"..": (pending.parent_nid, _DIRECTORY_TYPE)}
        for names in pending.blocks:
            for name in names:
                if name not in targets:
                    targets[name] = self._place(children.pop(name), parent_nid=nid)
        position = pending.position
        for names in pending.blocks:
            block = _dirent_block(names, targets)
            self._image[position : position + len(block)] = block
            position += BLOCK_BYTES

    def _place(self, node: Node, *, parent_nid: int) -> tuple[int, int]:
        """Write an inode and return its nid and its type."""
        if isinstance(node, bytes):
            return self._place_file(node), FILE_TYPES[node[5] >> 4]
        if isinstance(node, Directory):
            return self._place_directory(node, parent_nid=parent_nid), _DIRECTORY_TYPE
        assert isinstance(node, Linked)  # noqa: S101 - merging leaves no whiteout
        if node not in self._link_nids:
            self._link_nids[node] = self._place_file(node.inode)
        self._link_counts[node] += 1
        return self._link_nids[node], FILE_TYPES[node.inode[5] >> 4]

    def _place_file(self, inode: bytes) -> int:
        image = self._image
        self.inodes += 1
        if inode[0] == INLINE:
            return self._place_symlink(inode)
        padding = -len(image) % SLOT_BYTES
        position = len(image) + padding
        image += bytes(padding) + inode
        return position // SLOT_BYTES

    def _place_symlink(self, inode: bytes) -> int:
        """Write a symbolic link, whose target follows its inode or, if too long, has blocks of its own."""
        head = INODE.size + xattr_bytes(inode)
        target = inode[head:]
        if len(target) <= _MAX_INLINE_BYTES:
            position = self._align_inline(head, len(target))
            self._image += inode
        else:
            start = self._reserve_blocks(len(target))
            self._image[start : start + len(target)] = target
            position = self._append_plain(inode[:head], start=start, size=len(target))
        return position // SLOT_BYTES

    def _place_directory(self, directory: Directory, *, parent_nid: int | None) -> int:
        """Write a directory's inode and make room for its entries, to be written once its children have their places.

        The root is its own parent.
        """
        self.inodes += 1
        pending = _Pending(directory, _split(sorted([*directory.children, *_SELF_AND_PARENT])))
        size = BLOCK_BYTES * (len(pending.blocks) - 1) + _dirent_bytes(pending.blocks[-1])
        if size <= _MAX_INLINE_BYTES:
            position = self._align_inline(len(directory.inode), size)
            pending.position = position + len(directory.inode)
            self._image += directory.inode + bytes(size)
            self._describe(position, layout=INLINE, start=0, size=size)
        else:
            # Before its blocks, which are any number: the superblock names the root with 16 bits.
            position = self._append_plain(directory.inode, start=0, size=size)
            pending.position = self._reserve_blocks(size)
            self._describe(position, layout=PLAIN, start=pending.position // BLOCK_BYTES, size=size)
        subdirectories = sum(type(child) is Directory for child in directory.children.values())
        INODE_LINKS.pack_into(self._image, position + INODE_LINKS_OFFSET, 2 + subdirectories)
        pending.nid = position // SLOT_BYTES
        pending.parent_nid = pending.nid if parent_nid is None else parent_nid
        self._pending.append(pending)
        return pending.nid

    def _append_plain(self, inode: bytes, *, start: int, size: int) -> int:
        self._align(SLOT_BYTES)
        position = len(self._image)
        self._image += inode
        self._describe(position, layout=PLAIN, start=start // BLOCK_BYTES, size=size)
        return position

    def _describe(self, position: int, *, layout: int, start: int, size: int) -> None:
        self._image[position] = layout
        INODE_SIZE.pack_into(self._image, position + INODE_SIZE_OFFSET, size)
        INODE_UNION.pack_into(self._image, position + INODE_UNION_OFFSET, start)

    def _reserve_blocks(self, size: int) -> int:
        self._align(BLOCK_BYTES)
        start = len(self._image)
        self._image += bytes(size)
        self._align(BLOCK_BYTES)
        return start

    def _align_inline(self, head: int, tail: int) -> int:
        """Go to where an inode may begin so that what follows its head does not cross a block."""
        self._align(SLOT_BYTES)
        room = BLOCK_BYTES - (len(self._image) + head) % BLOCK_BYTES
        if tail > room:
            self._image += bytes(room + -room % SLOT_BYTES)
        return len(self._image)

    def _align(self, unit: int) -> None:
        self._image += bytes(-len(self._image) % unit)


def _split(names: list[bytes]) -> list[list[bytes]]:
    """Fill block after block with sorted names; the longest name leaves room for another in its block."""
    blocks: list[list[bytes]] = []
    room = 0
    for name in names:
        needed = DIRENT.size + len(name)
        if needed > room:
            blocks.append([])
            room = BLOCK_BYTES
        blocks[-1].append(name)
        room -= needed
    return blocks


def _dirent_bytes(names: list[bytes]) -> int:
    return DIRENT.size * len(names) + sum(map(len, names))


def _dirent_block(names: list[bytes], targets: dict[bytes, tuple[int, int]]) -> bytes:
    """Return one block of a directory: the entries, then the names. Unused room stays as it is, which is zero."""
    pack = DIRENT.pack
    offset = DIRENT.size * len(names)
    entries = []
    for name in names:
        nid, file_type = targets[name]
        entries.append(pack(nid, offset, file_type))
        offset += len(name)
    return b"".join(entries) + b"".join(names)
