# SPDX-License-Identifier: Apache-2.0
"""The merged tree is built exactly, at any depth and from any number of layers."""

import os
import resource
import socket
import stat
from pathlib import Path

import pytest

from tests.support.trees import Directory, File, HardLink, Tree, Whiteout, make_tree, stack, tree_snapshot
from worker.backends.assembly import assemble

pytestmark = pytest.mark.root


def _assembled(directory: Path, trees: list[Tree]) -> Path:
    layer_dirs = [directory / str(number) for number in range(len(trees))]
    for layer_dir, tree in zip(layer_dirs, trees, strict=True):
        make_tree(layer_dir, tree)
    target = directory / "target"
    target.mkdir()
    assemble(layer_dirs, target)
    return target


def test_each_layer_adds_and_hides(tmp_path: Path) -> None:
    """As the model of trees says."""
    trees: list[Tree] = [
        {"a": File(b"1"), "d/b": File(), "d/c": HardLink("d/b"), "e/f/g": File()},
        {"a": Whiteout(), "d": Directory(is_opaque=True, mode=0o700), "e/f": Whiteout()},
        {"d/h": File(), "e/f/i": File(mode=0o4755)},
    ]

    assert tree_snapshot(_assembled(tmp_path, trees)) == stack(trees)


def test_opaque_mark_of_an_unprivileged_store_counts(tmp_path: Path) -> None:
    """Without root the unpacker cannot write trusted attributes."""
    make_tree(tmp_path / "base", {"d/old": File()})
    make_tree(tmp_path / "top", {"d/new": File()})
    os.setxattr(tmp_path / "top" / "d", "user.overlay.opaque", b"y")
    (tmp_path / "target").mkdir()

    assemble([tmp_path / "base", tmp_path / "top"], tmp_path / "target")

    assert sorted(tree_snapshot(tmp_path / "target")) == [".", "d", "d/new"]
    assert os.listxattr(tmp_path / "target" / "d") == []


def test_whiteouts_that_are_one_inode_are_no_hard_links(tmp_path: Path) -> None:
    """Overlayfs and unpackers save inodes that way."""
    make_tree(tmp_path / "base", {"a": File(), "b": File(), "c": File()})
    make_tree(tmp_path / "top", {"a": Whiteout()})
    (tmp_path / "top" / "b").hardlink_to(tmp_path / "top" / "a")
    (tmp_path / "target").mkdir()

    assemble([tmp_path / "base", tmp_path / "top"], tmp_path / "target")

    assert sorted(tree_snapshot(tmp_path / "target")) == [".", "c"]


def test_sockets_are_copied(tmp_path: Path) -> None:
    """An image made from a running system has some."""
    make_tree(tmp_path / "layer", {"f": File()})
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "layer" / "s"))
    (tmp_path / "target").mkdir()

    assemble([tmp_path / "layer"], tmp_path / "target")

    assert stat.S_ISSOCK((tmp_path / "target" / "s").lstat().st_mode)
    assert tree_snapshot(tmp_path / "target") == tree_snapshot(tmp_path / "layer")


def test_neither_depth_nor_layers_cost_descriptors(tmp_path: Path) -> None:
    """300 layers, a path beyond PATH_MAX with a hard link at its end, and 64 descriptors beyond those open."""
    layer_dirs = [tmp_path / str(number) for number in range(300)]
    for layer_dir in layer_dirs:
        make_tree(layer_dir, {"d/f": File(layer_dir.name.encode())})
    bottom = _make_deep(layer_dirs[7], levels=40)
    (tmp_path / "target").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    # The limit is on the highest number, and the tests before have some open.
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 64, hard))
    try:
        assemble(layer_dirs, tmp_path / "target")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert (tmp_path / "target" / "d" / "f").read_bytes() == b"299"
    assert _read_deep(tmp_path / "target", levels=40) == bottom


NAME = "n" * 200


def _make_deep(top: Path, *, levels: int) -> bytes:
    """Make a file with a second name below so many directories; return what is in it."""
    place = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(NAME, dir_fd=place)
        place = _step(place)
    file = os.open("first", os.O_WRONLY | os.O_CREAT, dir_fd=place)
    os.write(file, b"bottom")
    os.close(file)
    os.link("first", "second", src_dir_fd=place, dst_dir_fd=place)
    os.close(place)
    return b"bottom"


def _read_deep(top: Path, *, levels: int) -> bytes:
    """Read the second name, which must be the same file as the first."""
    place = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        place = _step(place)
    assert os.path.samestat(os.stat("first", dir_fd=place), os.stat("second", dir_fd=place))
    file = os.open("second", os.O_RDONLY, dir_fd=place)
    content = os.read(file, 100)
    os.close(file)
    os.close(place)
    return content


def _step(place: int) -> int:
    below = os.open(NAME, os.O_RDONLY, dir_fd=place)
    os.close(place)
    return below
