# SPDX-License-Identifier: Apache-2.0
"""A layer in memory is the layer on disk: the same trees, the same refusals, however its archive is ordered."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.erofs import LIMITS
from tests.support.tar import CharDevice, Dir, Entry, File, Hardlink, Whiteout, tar_bytes
from tests.unit.layers.harness import chunked, limits
from tests.unit.layers.test_build import HOSTILE
from tests.unit.layers.test_directory import LAST_WINS, OPAQUE, SEMANTICS, WHITEOUT, orders
from worker.layers.erofs.blob import Blob
from worker.layers.erofs.build import read_layer
from worker.layers.erofs.format import BLOCK_BYTES, CHUNK_INDEX, CHUNKED, INODE, INODE_SIZE, INODE_SIZE_OFFSET
from worker.layers.erofs.layer_tree import LayerTree
from worker.layers.erofs.tree import Directory, Linked
from worker.layers.erofs.tree import Whiteout as Hidden
from worker.layers.refusal import Excess, Refusal

FIFO = "fifo"


def read(archive: bytes, directory: Path) -> LayerTree:
    """Read an archive to its end."""
    with Blob(directory / "blob") as blob:
        return read_layer(chunked(archive), blob=blob, limits=LIMITS)


def shape(layer: LayerTree, tar: bytes) -> dict[str, object]:
    """Return what is at each path of the layer, as `layer_shape` of directory layers does."""
    return dict(_shape(layer.root, tar, ""))


def _shape(directory: Directory, tar: bytes, prefix: str) -> Iterator[tuple[str, object]]:
    for name, node in directory.children.items():
        path = prefix + name.decode("utf-8", "surrogateescape")
        if isinstance(node, Directory):
            yield path, OPAQUE if node.is_opaque else "directory"
            yield from _shape(node, tar, f"{path}/")
        elif isinstance(node, Hidden):
            yield path, WHITEOUT
        else:
            yield path, content(node.inode if isinstance(node, Linked) else node, tar)


def content(inode: bytes, tar: bytes) -> object:
    """Return what a file holds, read where its inode says it is."""
    (size,) = INODE_SIZE.unpack_from(inode, INODE_SIZE_OFFSET)
    mode = int.from_bytes(inode[4:6], "little")
    if stat.S_ISLNK(mode):
        return inode[INODE.size :].decode("utf-8", "surrogateescape")
    if stat.S_ISFIFO(mode):
        return FIFO
    if inode[0] != CHUNKED:
        return b""
    start = CHUNK_INDEX.unpack_from(inode, len(inode) - CHUNK_INDEX.size)[2] * BLOCK_BYTES
    return tar[start : start + size]


@pytest.mark.parametrize(("entries", "expected"), SEMANTICS.values(), ids=SEMANTICS)
def test_whiteouts_have_the_same_effect_in_every_order(
    entries: list[Entry], expected: dict[str, object], tmp_path: Path
) -> None:
    """As in directory layers, by the same table."""
    for order in orders(entries):
        tar = tar_bytes(order)

        assert shape(read(tar, tmp_path), tar) == expected, [entry.path for entry in order]


@pytest.mark.parametrize(("entries", "expected"), LAST_WINS.values(), ids=LAST_WINS)
def test_the_last_entry_of_a_name_wins(entries: list[Entry], expected: dict[str, object], tmp_path: Path) -> None:
    """As in directory layers, by the same table."""
    tar = tar_bytes(entries)

    assert shape(read(tar, tmp_path), tar) == expected


@pytest.mark.parametrize(("archive", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused_for_the_same_reason(archive: bytes, reason: str, tmp_path: Path) -> None:
    """What directory layers refuse, by the same table."""
    prefix = tar_bytes([Dir("ok"), File("ok/first", b"1")])[:-1024]

    with pytest.raises(Refusal, match=reason):
        read(prefix + archive, tmp_path)


def test_unlisted_directories_are_marked_and_listed_ones_are_not(tmp_path: Path) -> None:
    """Their attributes belong to the layers below."""
    tar = tar_bytes([File("a/b/c"), Dir("a/b"), File("l/x"), File("l"), Whiteout("w/x")])

    root = read(tar, tmp_path).root

    a, w = root.children[b"a"], root.children[b"w"]
    assert isinstance(a, Directory)
    assert isinstance(w, Directory)
    b = a.children[b"b"]
    assert isinstance(b, Directory)
    assert (root.is_implied, a.is_implied, b.is_implied, w.is_implied) == (True, True, False, True)


def test_names_of_one_file_lead_to_one_node(tmp_path: Path) -> None:
    """Also over a chain of links."""
    root = read(tar_bytes([File("a", b"1"), Hardlink("b", "a"), Hardlink("d/c", "b"), File("e", b"1")]), tmp_path).root

    d = root.children[b"d"]
    assert isinstance(d, Directory)
    assert root.children[b"a"] is root.children[b"b"] is d.children[b"c"]
    assert isinstance(root.children[b"e"], bytes)


def test_a_whiteout_may_be_an_entry_of_any_type(tmp_path: Path) -> None:
    """Only its name counts: even a device that would be refused under another."""
    layer = read(tar_bytes([CharDevice(".wh.x", 0, 0), Dir(".wh.y")]), tmp_path)

    assert layer.root.children == {b"x": Hidden.OF_NAME, b"y": Hidden.OF_NAME}


@pytest.mark.parametrize(
    ("entries", "hides"),
    [
        ([File("x")], False),
        ([Whiteout("x")], True),
        ([File("d"), Dir("d")], True),
        ([File("x"), Whiteout("x")], False),
    ],
)
def test_it_knows_whether_it_hides_anything(entries: list[Entry], hides: bool, tmp_path: Path) -> None:
    """As the record of a directory layer says."""
    assert read(tar_bytes(entries), tmp_path).has_whiteouts is hides


def test_a_tree_deeper_than_any_stack_is_read(tmp_path: Path) -> None:
    """Recursion does not limit the depth."""
    deep = "/".join(["d"] * 1100)

    root = read(tar_bytes([File(f"{deep}/x", b"1"), Hardlink("link", f"{deep}/x")]), tmp_path).root

    assert sorted(root.children) == [b"d", b"link"]


def test_names_that_imply_too_much_are_refused(tmp_path: Path) -> None:
    """The bound is the one of directory layers."""
    deep = tar_bytes([File("/".join(["d"] * 1000))])

    with Blob(tmp_path / "blob") as blob, pytest.raises(Excess, match="unlisted directories"):
        read_layer(chunked(deep), blob=blob, limits=limits(max_implied_bytes=1 << 16))
