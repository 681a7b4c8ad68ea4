# SPDX-License-Identifier: Apache-2.0
"""What bind does that the conformance suite cannot see."""

from pathlib import Path

import pytest

from tests.support.trees import File, make_tree
from tests.support.unprivileged import nobodys_directory, run_as_nobody
from worker.backends.bind import BindBackend, bind_read_only
from worker.errors import BackendUnsupported
from worker.image import LowerDir
from worker.linux.mount import BindMount, mount_bind, unmount_tree
from worker.linux.mountinfo import mounts_at_or_below
from worker.linux.statfs import is_read_only_mount
from worker.paths import RootfsPaths


@pytest.fixture
def home(tmp_path: Path) -> RootfsPaths:
    """An empty home."""
    paths = RootfsPaths(tmp_path / "home")
    paths.rootfs_home.mkdir()
    return paths


def test_two_layers_are_refused(tmp_path: Path, home: RootfsPaths) -> None:
    """Before anything is made."""
    lowers = [LowerDir(path=tmp_path / "a"), LowerDir(path=tmp_path / "b")]

    with pytest.raises(BackendUnsupported, match="backend bind is not supported: it stacks at most 1 layers, not 2"):
        BindBackend().provision(lowers, home, is_read_only=True)

    assert list(home.rootfs_home.iterdir()) == []


def test_whiteouts_are_refused(tmp_path: Path, home: RootfsPaths) -> None:
    """The store says that there are some; nothing would hide them."""
    with pytest.raises(BackendUnsupported, match="whiteouts"):
        BindBackend().provision([LowerDir(path=tmp_path, has_whiteouts=True)], home, is_read_only=True)

    assert list(home.rootfs_home.iterdir()) == []


@pytest.mark.root
def test_rootfs_is_the_layer_itself(tmp_path: Path, home: RootfsPaths) -> None:
    """No copy is made, and the layer is not made read-only by it."""
    make_tree(tmp_path / "layer", {"f": File()})

    BindBackend().provision([LowerDir(path=tmp_path / "layer")], home, is_read_only=False)
    is_same = (home.rootfs_dir / "f").samefile(tmp_path / "layer" / "f")
    BindBackend().destroy(home)

    assert is_same
    assert not is_read_only_mount(tmp_path / "layer")
    assert list(home.rootfs_home.iterdir()) == []


@pytest.mark.root
def test_half_made_mount_is_made_anew(tmp_path: Path, home: RootfsPaths) -> None:
    """On kernels before 5.12 a killed caller leaves one that can be written to: it is not taken for the rootfs."""
    make_tree(tmp_path / "layer", {"f": File()})
    home.rootfs_dir.mkdir()
    mount_bind(BindMount(source=tmp_path / "layer", target=home.rootfs_dir))
    was_provisioned = BindBackend().is_provisioned(home)

    bind_read_only(tmp_path / "layer", home.rootfs_dir)
    mounts = mounts_at_or_below(home.rootfs_home)
    unmount_tree(home.rootfs_home)

    assert not was_provisioned
    assert len(mounts) == 1
    assert "ro" in mounts[0].options
    assert mounts[0].is_shared


@pytest.mark.root
def test_without_root_it_says_so() -> None:
    """The reason is for people who start a node by hand."""
    with nobodys_directory() as directory:

        def ask() -> None:
            reason = BindBackend().unsupported_reason(work_dir=directory, store_dir=directory)
            assert reason == "it needs root with the capability CAP_SYS_ADMIN"

        run_as_nobody(ask)
