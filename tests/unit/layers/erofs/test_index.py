# SPDX-License-Identifier: Apache-2.0
"""An index is all of a layer's tree, and applying it is merging the layer."""

from pathlib import Path

import pytest

from tests.support.erofs import LIMITS
from tests.support.tar import Dir, Entry, File, Hardlink, Opaque, Symlink, Whiteout, tar_bytes
from tests.unit.layers.harness import chunked
from worker.layers.erofs.blob import Blob
from worker.layers.erofs.budget import IndexBudget
from worker.layers.erofs.build import read_layer
from worker.layers.erofs.format import CHUNK_INDEX
from worker.layers.erofs.index import IndexDamaged, apply_index, dump_index, index_device_count
from worker.layers.erofs.tree import Directory, Linked
from worker.layers.refusal import Excess


def index_of(*entries: Entry, devices: int = 1) -> bytes:
    """Return the index of a layer."""
    with Blob(Path("/nonexistent")) as blob:
        layer = read_layer(chunked(tar_bytes(entries)), blob=blob, limits=LIMITS)
    return b"".join(dump_index(layer.root, device_count=devices))


def names(directory: Directory) -> dict[str, object]:
    """Return the names of a tree, nested."""
    return {
        name.decode(): names(node) if isinstance(node, Directory) else None
        for name, node in sorted(directory.children.items())
    }


def merged(*indexes: bytes) -> Directory:
    """Merge layers of one device each."""
    root = Directory()
    for number, index in enumerate(indexes):
        apply_index(root, index, first_device=number, budget=IndexBudget(1 << 30))
    return root


def test_the_order_of_an_archive_does_not_show() -> None:
    """Only where the data are does; without any, the bytes are the same."""
    entries = [Dir("d"), File("d/x"), Symlink("l", "d"), Whiteout("w"), Dir("e")]

    assert index_of(*entries) == index_of(*reversed(entries))


def test_layers_lie_upon_each_other() -> None:
    """What is hidden goes, directories are merged, anything else is replaced."""
    base = index_of(File("d/old"), File("d/kept"), File("o/gone"), File("f"), Dir("g"))
    top = index_of(Whiteout("d/old"), File("d/new"), Opaque("o"), File("o/own"), Dir("f"), File("g"))

    assert names(merged(base, top)) == {
        "d": {"kept": None, "new": None},
        "f": {},
        "g": None,
        "o": {"own": None},
    }


def test_unlisted_directories_keep_what_they_are_below() -> None:
    """Listed and opaque ones do not."""
    base = index_of(Dir("a", mode=0o1777), Dir("b", mode=0o1777), Dir("c", mode=0o1777))
    top = index_of(File("a/x"), Dir("b", mode=0o700), File("c/x"), Opaque("c"))

    modes = {
        name: int.from_bytes(node.inode[4:6], "little") & 0o7777
        for name, node in merged(base, top).children.items()
        if isinstance(node, Directory)
    }

    assert modes == {b"a": 0o1777, b"b": 0o700, b"c": 0o755}


def test_names_of_one_file_stay_one_file() -> None:
    """Those that a later layer leaves."""
    root = merged(index_of(File("a", b"1"), Hardlink("b", "a"), Hardlink("d/c", "a")), index_of(Whiteout("a")))

    d = root.children[b"d"]
    assert isinstance(d, Directory)
    assert isinstance(root.children[b"b"], Linked)
    assert root.children[b"b"] is d.children[b"c"]
    assert b"a" not in root.children


def test_what_a_later_layer_hides_or_replaces_costs_nothing() -> None:
    """So any number of layers may do so; but not add."""
    layers = [
        index_of(Dir("d"), File("d/a", b"1"), File("d/b/c"), File("e", xattrs={"user.a": b"x" * 100})),
        index_of(Opaque("d"), File("d/a", b"2"), File("d/b"), File("e/f")),
        index_of(Whiteout("d"), Whiteout("e"), Dir(".", xattrs={"user.a": b"x"})),
        index_of(Opaque(), Symlink("d", "a" * 200), Dir("e")),
    ]
    root, budget = Directory(), IndexBudget(8_000)

    for index in layers * 50:
        apply_index(root, index, first_device=0, budget=budget)

    with pytest.raises(Excess, match="8000"):
        apply_index(root, index_of(*(File(f"new-{n}") for n in range(20))), first_device=0, budget=budget)


def test_data_are_found_on_the_layer_s_own_device() -> None:
    """Numbered after those of the layers below."""
    root = merged(index_of(File("a", b"1")), index_of(File("b", b"2")), index_of(File("c", b"3"), Hardlink("e", "c")))

    c = root.children[b"c"]
    assert isinstance(c, Linked)
    inodes = [root.children[b"a"], root.children[b"b"], c.inode]
    assert [CHUNK_INDEX.unpack(inode[-8:]) for inode in inodes if isinstance(inode, bytes)] == [
        (0, 1, 1),
        (0, 2, 1),
        (0, 3, 1),
    ]


def test_a_tree_deeper_than_any_stack_goes_there_and_back() -> None:
    """Recursion does not limit the depth."""
    root = merged(index_of(File("/".join(["d"] * 1200))))

    depth = 0
    while isinstance(node := root.children[b"d"], Directory):
        root, depth = node, depth + 1
    assert depth == 1199


def test_it_says_how_many_devices_it_has() -> None:
    """One, or two if sparse files were written out."""
    assert [index_device_count(index_of(devices=count)) for count in (1, 2)] == [1, 2]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda index: index[:12], "too short"),
        (lambda index: b"rpl-idx\x02" + index[8:], "another version"),
        (lambda index: index[:-1], "checksum"),
        (lambda index: index[:20] + b"\xff" + index[21:], "checksum"),
    ],
)
def test_a_damaged_index_is_told(damage: object, reason: str) -> None:
    """Before anything of it is used."""
    with pytest.raises(IndexDamaged, match=reason):
        index_device_count(damage(index_of(File("a"))))  # type: ignore[operator]
