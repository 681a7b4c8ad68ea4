# SPDX-License-Identifier: Apache-2.0
"""Trees go as a whole, and nothing else goes with them."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.killing import count_lines, run_killed
from tests.support.trees import Directory, File, HardLink, Special, Symlink, make_tree
from tests.support.unprivileged import nobodys_directory, run_as_nobody
from worker.errors import RemovalFailed
from worker.linux.mount import BindMount, Mount, mount_bind, mount_filesystem, unmount_tree
from worker.linux.remove import remove_tree


def test_removes_everything_of_any_type(tmp_path: Path) -> None:
    """Files, links, fifos, directories without permissions and odd names."""
    tree = tmp_path / "tree"
    make_tree(
        tree,
        {
            "d/e/f": File(b"x"),
            "closed": Directory(mode=0o000),
            "closed/f": File(mode=0o000),
            "pipe": Special(kind=stat.S_IFIFO),
            "odd\n name": File(),
            "dangling": Symlink("nowhere"),
            "loop": Symlink("."),
        },
    )

    remove_tree(tree)

    assert list(tmp_path.iterdir()) == []


def test_follows_no_link(tmp_path: Path) -> None:
    """What links lead to stays, also when the tree itself is one."""
    kept = tmp_path / "kept"
    make_tree(kept, {"f": File(b"kept")})
    make_tree(
        tmp_path / "tree", {"file": Symlink(str(kept / "f")), "directory": Symlink(str(kept)), "up": Symlink("..")}
    )
    (tmp_path / "link").symlink_to(kept)

    remove_tree(tmp_path / "tree")
    remove_tree(tmp_path / "link")

    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (kept / "f").read_bytes() == b"kept"


def test_tells_the_bytes_freed(tmp_path: Path) -> None:
    """Blocks on disk count, holes do not, nor does a file that has another name elsewhere."""
    tree = tmp_path / "tree"
    make_tree(tree, {"f": File(os.urandom(100_000)), "g": File(b"x")})
    (tree / "g").unlink()
    with (tree / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    directory_bytes = tree.stat().st_blocks * 512
    file_bytes = (tree / "f").stat().st_blocks * 512
    make_tree(tmp_path / "other", {"f": File(bytes(100_000))})
    (tree / "linked").hardlink_to(tmp_path / "other" / "f")

    assert remove_tree(tree) == directory_bytes + file_bytes


def test_counts_a_file_with_two_names_in_the_tree_once(tmp_path: Path) -> None:
    """The last name frees the blocks."""
    tree = tmp_path / "tree"
    make_tree(tree, {"f": File(bytes(100_000)), "g": HardLink("f")})
    expected = sum(path.stat().st_blocks * 512 for path in (tree, tree / "f"))

    assert remove_tree(tree) == expected


def test_removes_a_file(tmp_path: Path) -> None:
    """The path need not be a directory."""
    (tmp_path / "file").write_bytes(b"x")

    remove_tree(tmp_path / "file")

    assert not (tmp_path / "file").exists()


def test_removing_nothing_is_no_error(tmp_path: Path) -> None:
    """Neither a missing tree nor a missing parent."""
    assert remove_tree(tmp_path / "missing") == 0
    assert remove_tree(tmp_path / "missing" / "too") == 0


def test_depth_needs_neither_stack_nor_descriptors(tmp_path: Path) -> None:
    """5,000 levels are beyond PATH_MAX, Python's recursion and the usual limit of open files."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(5000):
        os.mkdir("directory", dir_fd=descriptor)
        below = os.open("directory", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)

    remove_tree(tmp_path / "directory")

    assert list(tmp_path.iterdir()) == []


def test_may_run_beside_itself(tmp_path: Path) -> None:
    """Several removers of one tree get in nobody's way, and what each freed adds up to the tree."""
    tree = tmp_path / "tree"
    make_tree(tree, {f"{a}/{b}/{c}": File(b"x") for a in range(10) for b in range(10) for c in range(5)})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(remove_tree, [tree] * 4))

    assert not tree.exists()


def test_killed_removal_can_be_continued(tmp_path: Path) -> None:
    """Whatever line was the last."""
    tree = tmp_path / "tree"
    content = {"d/e/f": File(), "g": File(), "h": Directory()}
    make_tree(tree, content)
    lines = count_lines(lambda: remove_tree(tree))

    for line in range(1, lines, 5):
        make_tree(tree, content)
        run_killed(lambda: remove_tree(tree), at_line=line)
        remove_tree(tree)

        assert not tree.exists()


@pytest.mark.root
@pytest.mark.parametrize("is_bind", [False, True], ids=["other filesystem", "bind mount"])
def test_enters_no_mount(tmp_path: Path, *, is_bind: bool) -> None:
    """A mount point is listed in the error, its content stays, and everything else is gone."""
    kept, tree = tmp_path / "kept", tmp_path / "tree"
    make_tree(kept, {"f": File(b"kept")})
    make_tree(tree, {"d/mounted/hidden": File(), "d/e/f": File(), "g": File()})
    mounted = tree / "d" / "mounted"
    if is_bind:
        mount_bind(BindMount(source=kept, target=mounted))
    else:
        mount_filesystem(Mount(fs_type="tmpfs", source="tmpfs", target=mounted))
        (mounted / "f").write_bytes(b"kept")

    with pytest.raises(RemovalFailed) as refusal:
        remove_tree(tree)

    assert str(refusal.value) == f"{tree} is not fully removed: {mounted} is a mount point"
    assert (mounted / "f").read_bytes() == b"kept"
    assert [path.name for path in tree.iterdir()] == ["d"]
    unmount_tree(tree)
    remove_tree(tree)
    assert not tree.exists()


@pytest.mark.root
def test_owner_without_permissions_removes_all_the_same() -> None:
    """Without root, directories that may not be listed or written to are opened up first."""
    with nobodys_directory() as directory:
        tree = directory / "tree"

        def make_and_remove() -> None:
            (tree / "a" / "b").mkdir(parents=True)
            (tree / "a" / "b" / "f").touch()
            for path, mode in ((tree / "a" / "b", 0o000), (tree / "a", 0o500), (tree, 0o100)):
                path.chmod(mode)
            remove_tree(tree)

        run_as_nobody(make_and_remove)

        assert not tree.exists()


@pytest.mark.root
def test_failures_are_collected() -> None:
    """What cannot be removed is listed, and does not keep the rest."""
    with nobodys_directory() as directory:
        make_tree(directory / "tree", {"roots/f": File(), "nobodys": File()})
        (directory / "tree").chmod(0o777)

        def remove() -> None:
            with pytest.raises(RemovalFailed, match="roots/f Permission denied"):
                remove_tree(directory / "tree")

        run_as_nobody(remove)

        assert [path.name for path in (directory / "tree").iterdir()] == ["roots"]
