# SPDX-License-Identifier: Apache-2.0
"""What trees take on disk, as coreutils' `du` has it, whatever is in them."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.disk import du
from tests.support.trees import File, HardLink, Special, Symlink, make_tree
from tests.support.unprivileged import nobodys_directory, run_as_nobody
from worker.linux.disk_usage import DiskMeter
from worker.linux.mount import BindMount, Mount, mount_bind, mount_filesystem, unmount_tree
from worker.linux.remove import remove_tree

KIB = 1024


def test_a_tree_takes_what_du_says(tmp_path: Path) -> None:
    """Files, directories, links, fifos, holes and names that are no text."""
    tree = tmp_path / "tree"
    make_tree(
        tree,
        {
            "d/e/f": File(os.urandom(100 * KIB)),
            "d/again": HardLink("d/e/f"),
            "empty": File(),
            "pipe": Special(kind=stat.S_IFIFO),
            "odd\n name": File(b"x"),
            "loop": Symlink("."),
            "long": Symlink("x" * 200),
        },
    )
    (tree / os.fsdecode(b"\xff")).write_bytes(b"y" * 5000)
    with (tree / "sparse").open("wb") as sparse:
        sparse.truncate(10_000 * KIB)
        sparse.write(b"z" * 4096)

    measured = DiskMeter().measure(tree)

    assert measured == du(tree)
    assert 100 * KIB < measured < 400 * KIB


def test_a_file_counts_once_in_all_that_a_meter_measures(tmp_path: Path) -> None:
    """Its names may lie in different trees; another meter begins anew."""
    make_tree(tmp_path / "one", {"f": File(os.urandom(64 * KIB))})
    (tmp_path / "two").mkdir()
    os.link(tmp_path / "one" / "f", tmp_path / "two" / "f")
    meter = DiskMeter()

    assert meter.measure(tmp_path / "one") >= 64 * KIB
    assert meter.measure(tmp_path / "two") < 64 * KIB
    assert DiskMeter().measure(tmp_path / "two") >= 64 * KIB


def test_no_link_is_followed(tmp_path: Path) -> None:
    """Neither below the tree nor when the tree itself is one."""
    make_tree(tmp_path / "big", {"f": File(os.urandom(256 * KIB))})
    make_tree(tmp_path / "tree", {"directory": Symlink(str(tmp_path / "big")), "file": Symlink("../big/f")})
    (tmp_path / "link").symlink_to("big")

    assert DiskMeter().measure(tmp_path / "tree") < 64 * KIB
    assert DiskMeter().measure(tmp_path / "link") < 64 * KIB


def test_a_file_and_nothing_are_measured_too(tmp_path: Path) -> None:
    """What is not there takes nothing."""
    (tmp_path / "f").write_bytes(b"x" * 5000)

    assert DiskMeter().measure(tmp_path / "f") == du(tmp_path / "f")
    assert DiskMeter().measure(tmp_path / "none") == 0


def test_a_tree_deeper_than_any_path_is_measured(tmp_path: Path) -> None:
    """A container can make one; it takes neither stack nor descriptors."""
    top = tmp_path / "tree"
    top.mkdir()
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(40):
        name = "d" * 200
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    file = os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor)
    os.write(file, os.urandom(64 * KIB))
    os.close(file)
    os.close(descriptor)
    meter = DiskMeter()

    assert meter.measure(top) >= 64 * KIB + 40 * 512
    assert meter.unreadable == 0


@pytest.mark.root
def test_what_is_mounted_below_is_not_counted(tmp_path: Path) -> None:
    """Neither another filesystem nor a directory or a file of the same one."""
    make_tree(tmp_path / "big", {"f": File(os.urandom(256 * KIB))})
    tree = tmp_path / "tree"
    make_tree(tree, {"tmpfs": File(), "same": File(), "file": File(), "own": File(b"x")})
    for name in ("tmpfs", "same"):
        (tree / name).unlink()
        (tree / name).mkdir()
    before = DiskMeter().measure(tree)
    mount_filesystem(Mount(fs_type="tmpfs", source="tmpfs", target=tree / "tmpfs"))
    (tree / "tmpfs" / "f").write_bytes(os.urandom(256 * KIB))
    mount_bind(BindMount(source=tmp_path / "big", target=tree / "same"))
    mount_bind(BindMount(source=tmp_path / "big" / "f", target=tree / "file"))

    after = DiskMeter().measure(tree)

    unmount_tree(tree)
    assert abs(after - before) < 16 * KIB


@pytest.mark.root
def test_what_may_not_be_read_is_said() -> None:
    """The sum is short then, and its reader knows."""
    with nobodys_directory() as directory:
        content = File(os.urandom(64 * KIB))
        make_tree(directory / "tree", {"closed/f": content, "listed/f": content, "listed/g": content, "open/f": File()})
        (directory / "tree" / "closed").chmod(0o700)
        (directory / "tree" / "listed").chmod(0o744)

        def measure() -> None:
            meter = DiskMeter()
            assert 0 < meter.measure(directory / "tree") < 64 * KIB
            assert meter.unreadable == 2

        run_as_nobody(measure)


def test_a_tree_that_is_being_deleted_is_measured_as_far_as_it_is_there(tmp_path: Path) -> None:
    """A destroy may be under way: whatever vanishes, nothing is raised."""
    tree = tmp_path / "tree"
    make_tree(tree, {f"d{number}/e/f{name}": File(b"x") for number in range(60) for name in range(10)})
    whole = DiskMeter().measure(tree)

    with ThreadPoolExecutor() as executor:
        removal = executor.submit(remove_tree, tree)
        sizes = [DiskMeter().measure(tree) for _ in range(20)]
        removal.result()

    assert all(size <= whole for size in sizes)
    assert DiskMeter().measure(tree) == 0
