# SPDX-License-Identifier: Apache-2.0
"""Attributes are copied exactly, by path and by descriptor."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.trees import Directory, Entry, File, Special, Symlink, make_tree, tree_snapshot
from tests.support.unprivileged import nobodys_directory, run_as_nobody
from worker.linux.attributes import copy_attributes, is_portable_xattr

CAPABILITY = b"\x01\x00\x00\x02\x00\x20" + bytes(14)
ENTRIES: dict[str, Entry] = {
    "file": File(mode=0o6751, uid=1, gid=2, mtime_ns=-5, xattrs={"user.a": b"1", "trusted.b": b"\0"}),
    "capable": File(mode=0o4755, uid=7, xattrs={"security.capability": CAPABILITY}),
    "directory": Directory(mode=0o3700, uid=3, gid=4, xattrs={"user.a": b""}),
    "link": Symlink("file", uid=5, gid=6, xattrs={"trusted.c": b"x"}),
    "pipe": Special(kind=stat.S_IFIFO, mode=0o640, uid=7),
    "device": Special(kind=stat.S_IFCHR, mode=0o666, device=os.makedev(1, 3), gid=9),
}
PLAIN: dict[str, Entry] = {
    "file": File(),
    "capable": File(),
    "directory": Directory(),
    "link": Symlink("file"),
    "pipe": Special(kind=stat.S_IFIFO),
    "device": Special(kind=stat.S_IFCHR, device=os.makedev(1, 3)),
}


@pytest.mark.root
@pytest.mark.parametrize("name", ENTRIES)
def test_copies_everything_but_content(tmp_path: Path, name: str) -> None:
    """Owner, mode with its special bits, nanoseconds, extended attributes and capabilities of any type of file."""
    make_tree(tmp_path / "from", {name: ENTRIES[name]})
    make_tree(tmp_path / "to", {name: PLAIN[name]})
    source, target = tmp_path / "from" / name, tmp_path / "to" / name

    copy_attributes(str(source), str(target), source.lstat())

    assert tree_snapshot(tmp_path / "to")[name] == tree_snapshot(tmp_path / "from")[name]


@pytest.mark.root
@pytest.mark.parametrize("name", ["file", "directory", "capable"])
def test_copies_between_descriptors(tmp_path: Path, name: str) -> None:
    """As between paths."""
    make_tree(tmp_path / "from", {name: ENTRIES[name]})
    make_tree(tmp_path / "to", {name: PLAIN[name]})
    source, target = (os.open(tmp_path / side / name, os.O_RDONLY) for side in ("from", "to"))

    copy_attributes(source, target, os.fstat(source))
    os.close(source)
    os.close(target)

    assert tree_snapshot(tmp_path / "to")[name] == tree_snapshot(tmp_path / "from")[name]


@pytest.mark.root
def test_removes_what_the_source_does_not_have(tmp_path: Path) -> None:
    """A target may have inherited attributes, such as its directory's default access list."""
    make_tree(tmp_path / "from", {"f": File()})
    make_tree(tmp_path / "to", {"f": File(xattrs={"user.inherited": b"x"})})

    copy_attributes(str(tmp_path / "from" / "f"), str(tmp_path / "to" / "f"), (tmp_path / "from" / "f").stat())

    assert tree_snapshot(tmp_path / "to") == tree_snapshot(tmp_path / "from")


@pytest.mark.root
def test_leaves_overlayfs_marks_behind(tmp_path: Path) -> None:
    """An opaque directory of a layer is not an opaque directory of a copy."""
    make_tree(tmp_path / "from", {"d": Directory(is_opaque=True)})
    make_tree(tmp_path / "to", {"d": Directory(mtime_ns=1)})

    copy_attributes(str(tmp_path / "from" / "d"), str(tmp_path / "to" / "d"), (tmp_path / "from" / "d").stat())

    assert os.listxattr(tmp_path / "to" / "d") == []


@pytest.mark.parametrize(
    ("name", "is_portable"),
    [
        ("user.note", True),
        ("security.capability", True),
        ("system.posix_acl_access", True),
        ("trusted.overlay.opaque", False),
        ("user.overlay.redirect", False),
        ("user.overlayed", True),
        ("security.selinux", False),
    ],
)
def test_attributes_of_the_place_are_told_apart(name: str, *, is_portable: bool) -> None:
    """Overlayfs' own and the host's labels do not travel."""
    assert is_portable_xattr(name) == is_portable


@pytest.mark.root
def test_without_root_owner_and_privileged_attributes_stay_behind() -> None:
    """Everything else is copied."""
    with nobodys_directory() as directory:
        source = directory / "from"
        make_tree(source, {"f": File(mode=0o640, uid=1, xattrs={"user.a": b"1", "security.capability": CAPABILITY})})
        (source / "f").chmod(0o644)

        def copy() -> None:
            (directory / "to").mkdir()
            (directory / "to" / "f").touch()
            copy_attributes(str(source / "f"), str(directory / "to" / "f"), (source / "f").stat())

        run_as_nobody(copy)

        copied, original = (tree_snapshot(directory / side)["f"] for side in ("to", "from"))
        assert copied == replace(original, uid=65534, gid=65534, xattrs=(("user.a", b"1"),))
