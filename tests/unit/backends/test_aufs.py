# SPDX-License-Identifier: Apache-2.0
"""Aufs without an aufs: kernels that carry it are rare, so its mounts are checked as data.

The one place where a part of ours is replaced: where the kernel has no aufs, the function that would mount is, and
records what it is given. With aufs in the kernel, the conformance suite runs over it as over the others.
"""

import os
from pathlib import Path

import pytest

from tests.support.trees import Directory, make_tree, tree_snapshot
from worker.backends import aufs
from worker.backends.aufs import AufsBackend, plan_mount
from worker.errors import BackendUnsupported
from worker.image import LayerFormat, LowerDir
from worker.linux.mount import Mount, MountFlag, Option
from worker.linux.statfs import knows_filesystem
from worker.paths import RootfsPaths

HOME = RootfsPaths(Path("/w/home"))
LOWERS = [Path("/s/base"), Path("/s/top")]


def test_plan_of_a_writable_rootfs() -> None:
    """The upper directory takes writes, the layers follow with the topmost first and their whiteouts obeyed."""
    assert plan_mount(LOWERS, HOME, is_read_only=False) == Mount(
        fs_type="aufs",
        source="aufs",
        target=HOME.rootfs_dir,
        options=(Option("br", (HOME.upper_dir, "=rw", ":", Path("/s/top"), "=ro+wh", ":", Path("/s/base"), "=ro+wh")),),
    )


def test_plan_of_a_read_only_rootfs() -> None:
    """No branch takes writes, and no table of inode numbers is kept in one."""
    plan = plan_mount(LOWERS, HOME, is_read_only=True)

    assert plan.options == (
        Option("br", (Path("/s/top"), "=ro+wh", ":", Path("/s/base"), "=ro+wh")),
        Option("noxino"),
    )
    assert plan.flags == MountFlag.READ_ONLY


def test_takes_layers_with_aufs_whiteouts() -> None:
    """`.wh.` files, which only it understands."""
    assert AufsBackend.layer_formats == (LayerFormat.DIRECTORY_AUFS,)


def test_more_layers_than_branches_are_refused(tmp_path: Path) -> None:
    """127 branches are what aufs is built for; one is the upper directory."""
    lowers = [LowerDir(path=tmp_path / str(number)) for number in range(127)]

    with pytest.raises(BackendUnsupported, match="at most 126 layers, not 127"):
        AufsBackend().provision(lowers, RootfsPaths(tmp_path), is_read_only=False)


@pytest.mark.root
def test_kernel_without_aufs_is_the_reason(tmp_path: Path) -> None:
    """A node with aufs works instead."""
    reason = AufsBackend().unsupported_reason(work_dir=tmp_path, store_dir=tmp_path)

    assert reason == (None if knows_filesystem("aufs") else "the kernel has no aufs filesystem")


@pytest.mark.root
def test_directories_are_made_before_the_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upper directory has the topmost root's attributes, and is the volume."""
    make_tree(tmp_path / "layer", {".": Directory(mode=0o711, uid=5)})
    home = RootfsPaths(tmp_path / "home")
    home.rootfs_home.mkdir()
    made: list[Mount | Path] = []
    monkeypatch.setattr(aufs, "mount_in_one_page", made.append)
    monkeypatch.setattr(aufs, "receive_and_share", made.append)

    volumes = AufsBackend().provision([LowerDir(path=tmp_path / "layer")], home, is_read_only=False)

    assert made == [plan_mount([tmp_path / "layer"], home, is_read_only=False), home.rootfs_dir]
    assert volumes == (home.upper_dir,)
    assert tree_snapshot(home.upper_dir)["."] == tree_snapshot(tmp_path / "layer")["."]
    assert sorted(os.listdir(home.rootfs_home)) == ["rootfs", "upper"]  # noqa: PTH208 - names are compared
    assert AufsBackend().destroy(home)
