# SPDX-License-Identifier: Apache-2.0
"""Directories are opened where they are and nowhere else."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.linux import openat2
from worker.linux.mount import BindMount, mount_bind, unmount_tree
from worker.linux.openat2 import open_directory_below, open_directory_on_mount


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    """A descriptor of the test's directory."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_opens_a_directory(tmp_path: Path, top: int) -> None:
    """The one of that name."""
    (tmp_path / "d").mkdir()

    descriptor = open_directory_on_mount("d", dir_fd=top)

    assert os.path.samestat(os.fstat(descriptor), (tmp_path / "d").stat())
    os.close(descriptor)


@pytest.mark.parametrize("name", ["file", "link", "link/below", "missing"])
def test_opens_nothing_else(tmp_path: Path, top: int, name: str) -> None:
    """Neither a file nor a link to a directory, on the way neither."""
    (tmp_path / "d" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match=r"Not a directory|symbolic links|No such file"):
        open_directory_on_mount(name, dir_fd=top)


@pytest.mark.root
def test_opens_no_mount_point(tmp_path: Path, top: int) -> None:
    """Not even one of the same filesystem."""
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    mount_bind(BindMount(source=tmp_path / "source", target=tmp_path / "target"))

    with pytest.raises(OSError, match="cross-device") as refusal:
        open_directory_on_mount("target", dir_fd=top)

    assert refusal.value.errno == errno.EXDEV
    unmount_tree(tmp_path)


@pytest.mark.parametrize("depth", [0, 1, 15, 16, 31, 60])
def test_opens_at_any_depth(tmp_path: Path, top: int, depth: int) -> None:
    """Also below paths longer than the kernel takes at once."""
    place = os.dup(top)
    for number in range(depth):
        name = f"{number:0255d}"
        os.mkdir(name, dir_fd=place)
        below = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below

    descriptor = open_directory_below(top, [f"{number:0255d}" for number in range(depth)])

    assert os.path.samestat(os.fstat(descriptor), os.fstat(place))
    assert list(tmp_path.iterdir()) == [] or depth
    os.close(descriptor)
    os.close(place)


def test_older_kernels_tell_other_filesystems_by_the_device(top: int) -> None:
    """The way without openat2; white-box, since this kernel has it."""
    root = os.open("/", os.O_RDONLY)

    with pytest.raises(OSError, match="cross-device"):
        openat2._open_on_device("proc", os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
    descriptor = openat2._open_on_device(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=top)

    assert os.path.samestat(os.fstat(descriptor), os.fstat(top))
    os.close(descriptor)
    os.close(root)
