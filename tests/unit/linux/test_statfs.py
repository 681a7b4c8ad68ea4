# SPDX-License-Identifier: Apache-2.0
"""What a directory's filesystem is and can."""

import subprocess
from pathlib import Path

import pytest

from tests.support.needs import missing_programs
from worker.linux.mount import BindMount, Mount, Option, mount_bind, mount_filesystem, unmount_tree
from worker.linux.statfs import (
    filesystem_type,
    free_bytes,
    is_mount_point,
    is_read_only_mount,
    knows_filesystem,
    tells_entry_types,
)


def test_names_a_filesystem_it_does_not_know_by_its_number() -> None:
    """As in the kernel's magic.h."""
    assert filesystem_type(Path("/proc")) == "0x9fa0"


@pytest.mark.root
def test_names_a_filesystem_it_knows(tmp_path: Path) -> None:
    """As in /proc/filesystems."""
    mount_filesystem(Mount(fs_type="tmpfs", source="tmpfs", target=tmp_path))
    name = filesystem_type(tmp_path)
    unmount_tree(tmp_path)

    assert name == "tmpfs"


def test_missing_path_is_an_error(tmp_path: Path) -> None:
    """There is no filesystem to name."""
    with pytest.raises(FileNotFoundError):
        filesystem_type(tmp_path / "missing")


@pytest.mark.root
def test_free_bytes_are_those_left(tmp_path: Path) -> None:
    """What is written is taken off."""
    mount_filesystem(Mount(fs_type="tmpfs", source="tmpfs", target=tmp_path, options=(Option("size", "1m"),)))
    before = free_bytes(tmp_path)
    (tmp_path / "file").write_bytes(bytes(256 << 10))
    after = free_bytes(tmp_path)
    unmount_tree(tmp_path)

    assert (before, before - after) == (1 << 20, 256 << 10)


def test_mount_points_are_told_from_directories(tmp_path: Path) -> None:
    """Files, missing paths and links to mount points are none."""
    (tmp_path / "link").symlink_to("/proc")
    (tmp_path / "file").touch()

    assert is_mount_point(Path("/proc"))
    assert not is_mount_point(Path("/proc/sys"))
    assert not is_mount_point(tmp_path)
    assert not is_mount_point(tmp_path / "missing")
    assert not is_mount_point(tmp_path / "file" / "below")
    assert not is_mount_point(tmp_path / "link")


@pytest.mark.root
def test_bind_mounts_of_the_same_filesystem_are_mount_points(tmp_path: Path) -> None:
    """The device number does not give them away, and no write is refused."""
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    mount_bind(BindMount(source=tmp_path / "source", target=tmp_path / "target"))

    assert is_mount_point(tmp_path / "target")
    assert not is_read_only_mount(tmp_path / "target")
    unmount_tree(tmp_path)


def test_kernel_knows_its_filesystems() -> None:
    """One that is always there, and one that never is."""
    assert knows_filesystem("tmpfs")
    assert not knows_filesystem("nosuchfs")


def test_ordinary_filesystems_tell_entry_types(tmp_path: Path) -> None:
    """In a directory with entries of several types, and more than one buffer of them."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("x")
    for number in range(2000):
        (tmp_path / f"file-with-a-long-name-{number}").touch()

    assert tells_entry_types(tmp_path)


@pytest.mark.root
def test_ext4_without_filetype_does_not_tell_entry_types(tmp_path: Path) -> None:
    """As an XFS made with ftype=0, which newer kernels do not mount."""
    if missing := missing_programs("mkfs.ext4"):
        pytest.skip(missing)
    image, target = tmp_path / "image", tmp_path / "target"
    target.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^filetype", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, target], check=True)

    answer = tells_entry_types(target)
    unmount_tree(target)

    assert not answer
