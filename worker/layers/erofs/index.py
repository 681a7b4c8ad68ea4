# SPDX-License-Identifier: Apache-2.0
"""`layer.idx`: a layer's tree as it lies beside its tar; a pure function of the tar, byte for byte.

::

    magic, count of devices
    record of the root, records of its children by name; after a directory's record those of its children, and an end
    CRC-32 of all before

A record is a head (kind and flags, length of the name, length of the rest), the name, and the encoded inode. The first
of a file's several names carries the inode; the others carry the number of that file, counted in order. All integers
are little-endian.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from enum import IntFlag

from worker.layers.erofs.budget import IndexBudget, linked_bytes
from worker.layers.erofs.inode import with_devices_from
from worker.layers.erofs.tree import Directory, Linked, Node, Whiteout

_MAGIC = b"rpl-idx\x01"
_PREAMBLE = struct.Struct("<8sB")
_RECORD = struct.Struct("<BBI")
_NUMBER = struct.Struct("<I")
_BATCH_BYTES = 1 << 20

_Children = Iterator[tuple[bytes, Node]]


class _Kind(IntFlag):
    """What a record is, and flags of directories."""

    END = 0
    FILE = 1
    LINKED = 2
    LINK = 3
    WHITEOUT = 4
    DIRECTORY = 8
    OPAQUE = 16
    IMPLIED = 32


class IndexDamaged(Exception):
    """The bytes are no index of a layer, or not all of one."""


def dump_index(root: Directory, *, device_count: int) -> Iterator[bytes]:
    """Yield the index of a layer's tree in pieces.

    Args:
        root: Of a finished layer.
        device_count: How many files hold its data.
    """
    checksum = 0
    for piece in _batched(_records(root), begin=_PREAMBLE.pack(_MAGIC, device_count)):
        checksum = zlib.crc32(piece, checksum)
        yield piece
    yield _NUMBER.pack(checksum)


def index_device_count(index: bytes) -> int:
    """Return how many files hold the layer's data.

    Raises:
        IndexDamaged: It is no index, or a damaged one.
    """
    if len(index) < _PREAMBLE.size + _NUMBER.size:
        raise IndexDamaged("it is too short")
    magic, device_count = _PREAMBLE.unpack_from(index)
    if magic != _MAGIC:
        raise IndexDamaged("it is no index of a layer, or one of another version")
    if zlib.crc32(memoryview(index)[: -_NUMBER.size]) != _NUMBER.unpack(index[-_NUMBER.size :])[0]:
        raise IndexDamaged("its checksum is wrong")
    return int(device_count)


def apply_index(root: Directory, index: bytes, *, first_device: int, budget: IndexBudget) -> None:
    """Lay a layer over the tree of those below it, which `root` becomes.

    Args:
        root: Of the layers below; a directory without children at first.
        index: Of the layer; `index_device_count` has found it whole.
        first_device: How many devices the layers below have.
        budget: Of which the layers below have taken what they cost.

    Raises:
        Excess: It is used up; the layer is applied in part.
    """
    _Overlay(root, index, first_device=first_device, budget=budget).run()


class _Overlay:
    """One pass over an index's records, with a stack of the directories they are in."""

    def __init__(self, root: Directory, index: bytes, *, first_device: int, budget: IndexBudget) -> None:
        self._index = index
        self._first_device = first_device
        self._budget = budget
        self._above: list[Directory] = []
        self._directory = Directory()
        self._directory.children[b""] = root
        self._linked: list[Linked] = []

    def run(self) -> None:
        index, end, unpack = self._index, len(self._index) - _NUMBER.size, _RECORD.unpack_from
        position = _PREAMBLE.size
        while position < end:
            kind, name_length, length = unpack(index, position)
            position += _RECORD.size
            name = index[position : position + name_length]
            position += name_length + length
            if kind == _FILE:
                inode = index[position - length : position]
                self._put(name, with_devices_from(inode, self._first_device))
            elif kind == _END:
                self._directory = self._above.pop()
            else:
                self._apply_other(kind, name, index[position - length : position])

    def _apply_other(self, kind: int, name: bytes, content: bytes) -> None:
        if kind & _Kind.DIRECTORY:
            self._enter(kind, name, content)
        elif kind == _Kind.WHITEOUT:
            self._drop(name)
        elif kind == _Kind.LINKED:
            self._budget.take(linked_bytes(content))
            self._linked.append(Linked(with_devices_from(content, self._first_device)))
            self._put(name, self._linked[-1])
        else:
            self._put(name, self._linked[_NUMBER.unpack(content)[0]])

    def _put(self, name: bytes, node: Node) -> None:
        self._drop(name)
        self._budget.take_node(name, node)
        self._directory.children[name] = node

    def _drop(self, name: bytes) -> None:
        if (node := self._directory.children.pop(name, None)) is not None:
            self._budget.give_back(name, node)

    def _clear(self, directory: Directory) -> None:
        for name, node in directory.children.items():
            self._budget.give_back(name, node)
        directory.children.clear()

    def _enter(self, kind: int, name: bytes, inode: bytes) -> None:
        """Go into a directory: over one below it is merged, over anything else it is new."""
        directory = self._directory.children.get(name)
        if type(directory) is not Directory:
            directory = Directory(inode)
            self._put(name, directory)
        elif kind & _Kind.OPAQUE or not kind & _Kind.IMPLIED:
            self._budget.take(2 * (len(inode) - len(directory.inode)))
            directory.inode = inode
        if kind & _Kind.OPAQUE:
            self._clear(directory)
        self._above.append(self._directory)
        self._directory = directory


_FILE, _END = int(_Kind.FILE), int(_Kind.END)


def _records(root: Directory) -> Iterator[bytes]:
    """Yield the records' parts; without recursion, since a path may have two thousand components."""
    numbers: dict[Linked, int] = {}
    open_directories: list[_Children] = [iter([(b"", root)])]
    while open_directories:
        for name, node in open_directories[-1]:
            yield from _record(name, node, numbers)
            if type(node) is Directory:
                open_directories.append(iter(sorted(node.children.items(), key=_by_name)))
                break
        else:
            open_directories.pop()
            if open_directories:
                yield _RECORD.pack(_Kind.END, 0, 0)


def _by_name(item: tuple[bytes, Node]) -> bytes:
    return item[0]


def _record(name: bytes, node: Node, numbers: dict[Linked, int]) -> tuple[bytes, bytes, bytes]:
    kind, content = _kind_and_content(node, numbers)
    return _RECORD.pack(kind, len(name), len(content)), name, content


def _kind_and_content(node: Node, numbers: dict[Linked, int]) -> tuple[int, bytes]:
    if isinstance(node, bytes):
        return _FILE, node
    if isinstance(node, Directory):
        flags = (_Kind.OPAQUE if node.is_opaque else 0) | (_Kind.IMPLIED if node.is_implied else 0)
        return _Kind.DIRECTORY | flags, node.inode
    if isinstance(node, Whiteout):
        return _Kind.WHITEOUT, b""
    if node in numbers:
        return _Kind.LINK, _NUMBER.pack(numbers[node])
    numbers[node] = len(numbers)
    return _Kind.LINKED, node.inode


def _batched(parts: Iterable[bytes], *, begin: bytes) -> Iterator[bytes]:
    """Join small pieces to large ones."""
    batch, size = [begin], len(begin)
    for part in parts:
        batch.append(part)
        size += len(part)
        if size >= _BATCH_BYTES:
            yield b"".join(batch)
            batch, size = [], 0
    yield b"".join(batch)
