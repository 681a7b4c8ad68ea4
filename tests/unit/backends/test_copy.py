# SPDX-License-Identifier: Apache-2.0
"""What copy does that the conformance suite cannot see: without root, on a full disk, and where it cannot be exact."""

from pathlib import Path

import pytest

from tests.support.trees import Directory, File, HardLink, Symlink, Tree, Whiteout, make_tree, stack, tree_snapshot
from tests.support.unprivileged import NOBODY, nobodys_directory, run_as_nobody
from worker.backends.copy import CopyBackend
from worker.errors import BackendUnsupported, StorageExhausted
from worker.image import LowerDir
from worker.linux.mount import Mount, Option, mount_filesystem, unmount_tree
from worker.paths import RootfsPaths


@pytest.fixture
def home(tmp_path: Path) -> RootfsPaths:
    """An empty home."""
    paths = RootfsPaths(tmp_path / "home")
    paths.rootfs_home.mkdir()
    return paths


def test_works_everywhere(tmp_path: Path) -> None:
    """There is nothing to probe."""
    assert CopyBackend().unsupported_reason(work_dir=tmp_path, store_dir=tmp_path) is None


@pytest.mark.root
def test_copies_without_root() -> None:
    """Layers of an unprivileged store, which have one owner, come out exactly."""
    with nobodys_directory() as directory:
        base: Tree = {
            "d": Directory(mode=0o755, uid=NOBODY, gid=NOBODY),
            "d/f": File(b"x", mode=0o640, uid=NOBODY, gid=NOBODY, xattrs={"user.note": b"kept"}),
            "d/g": HardLink("d/f"),
            "d/gone": File(uid=NOBODY, gid=NOBODY),
            "closed": Directory(mode=0o500, uid=NOBODY, gid=NOBODY),
            "closed/f": File(mode=0o400, uid=NOBODY, gid=NOBODY),
            "link": Symlink("d", uid=NOBODY, gid=NOBODY),
            ".": Directory(mode=0o555, uid=NOBODY, gid=NOBODY),
        }
        top: Tree = {
            ".": Directory(uid=NOBODY, gid=NOBODY),
            "d": Directory(uid=NOBODY, gid=NOBODY),
            "d/gone": Whiteout(),
        }
        for name, tree in (("base", base), ("top", top)):
            make_tree(directory / name, tree)
        home = RootfsPaths(directory / "home")
        lowers = [LowerDir(path=directory / "base"), LowerDir(path=directory / "top")]

        def provision() -> None:
            home.rootfs_home.mkdir()
            CopyBackend().provision(lowers, home, is_read_only=False)

        def destroy() -> None:
            assert CopyBackend().destroy(home)

        run_as_nobody(provision)
        copied = tree_snapshot(home.rootfs_dir)
        run_as_nobody(destroy)

        assert copied == stack([base, top])
        assert not home.rootfs_dir.exists()


@pytest.mark.root
def test_refuses_read_only_without_root() -> None:
    """Modes would keep nobody out who owns the files; nothing is made."""
    with nobodys_directory() as directory:

        def provision() -> None:
            with pytest.raises(BackendUnsupported, match="only root"):
                CopyBackend().provision([LowerDir(path=directory)], RootfsPaths(directory), is_read_only=True)

        run_as_nobody(provision)

        assert list(directory.iterdir()) == []


@pytest.mark.root
def test_refuses_without_root_what_it_may_not_read() -> None:
    """A file closed to its owner cannot be copied by them; the error names it, and nothing is left."""
    with nobodys_directory() as directory:
        make_tree(directory / "layer", {"secret": File(b"x", mode=0o000, uid=NOBODY)})
        home = RootfsPaths(directory / "home")

        def provision() -> None:
            home.rootfs_home.mkdir()
            with pytest.raises(BackendUnsupported, match="Permission denied: 'secret'"):
                CopyBackend().provision([LowerDir(path=directory / "layer")], home, is_read_only=False)

        run_as_nobody(provision)

        assert list(home.rootfs_home.iterdir()) == []


@pytest.mark.root
def test_refuses_what_the_filesystem_cannot_keep(tmp_path: Path) -> None:
    """An attribute that would be lost is no faithful copy; nothing is left."""
    work = tmp_path / "work"
    work.mkdir()
    mount_filesystem(Mount(fs_type="ramfs", source="ramfs", target=work))
    home = RootfsPaths(work / "home")
    home.rootfs_home.mkdir()
    make_tree(tmp_path / "layer", {"f": File(xattrs={"user.note": b"x"})})

    with pytest.raises(BackendUnsupported, match="not supported"):
        CopyBackend().provision([LowerDir(path=tmp_path / "layer")], home, is_read_only=False)
    left = list(home.rootfs_home.iterdir())
    unmount_tree(work)

    assert left == []


@pytest.mark.root
def test_full_disk_leaves_room_again(tmp_path: Path) -> None:
    """What was copied so far is deleted: a retry, or somebody else, can use the space."""
    work = tmp_path / "work"
    work.mkdir()
    mount_filesystem(Mount(fs_type="tmpfs", source="tmpfs", target=work, options=(Option("size", "256k"),)))
    home = RootfsPaths(work / "home")
    home.rootfs_home.mkdir()
    make_tree(tmp_path / "layer", {"a": File(bytes(100_000)), "b": File(bytes(1_000_000))})

    with pytest.raises(StorageExhausted, match=f"no room at {home.rootfs_dir}"):
        CopyBackend().provision([LowerDir(path=tmp_path / "layer")], home, is_read_only=False)
    left = list(home.rootfs_home.iterdir())
    unmount_tree(work)

    assert left == []


@pytest.mark.root
def test_leftovers_of_a_killed_copy_are_not_used(tmp_path: Path, home: RootfsPaths) -> None:
    """The partial tree is built from nothing again."""
    make_tree(tmp_path / "layer", {"f": File(b"right")})
    make_tree(home.rootfs_home / "rootfs.partial", {"f": File(b"wr"), "litter": File()})

    CopyBackend().provision([LowerDir(path=tmp_path / "layer")], home, is_read_only=False)

    assert tree_snapshot(home.rootfs_dir) == tree_snapshot(tmp_path / "layer")
    assert [path.name for path in home.rootfs_home.iterdir()] == ["rootfs"]


@pytest.mark.root
def test_inherits_no_access_list_from_the_layers_directories(tmp_path: Path, home: RootfsPaths) -> None:
    """A directory's default list is for what the container makes, not for what a later layer puts there."""
    tags = [(0x01, 7, 0xFFFFFFFF), (0x02, 7, 1000), (0x04, 5, 0xFFFFFFFF), (0x10, 7, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF)]
    packed = b"".join(t.to_bytes(2, "little") + p.to_bytes(2, "little") + o.to_bytes(4, "little") for t, p, o in tags)
    acl = b"\x02\x00\x00\x00" + packed
    base: Tree = {"d": Directory(xattrs={"system.posix_acl_default": acl})}
    top: Tree = {**base, "d/f": File(), "d/e": Directory()}
    for name, tree in (("base", base), ("top", top)):
        make_tree(tmp_path / name, tree)

    lowers = [LowerDir(path=tmp_path / "base"), LowerDir(path=tmp_path / "top")]
    CopyBackend().provision(lowers, home, is_read_only=False)

    assert tree_snapshot(home.rootfs_dir) == stack([base, top])
