# SPDX-License-Identifier: Apache-2.0
"""Images are mounted from plain files, and what the kernel refuses is said in its words."""

from pathlib import Path

import pytest

from tests.support.erofs import make_image, mounted
from tests.support.mounts import mounts_below
from tests.support.tar import File
from worker.errors import MountFailed
from worker.linux.erofs import make_private, mount_erofs
from worker.linux.mount import Mount, mount_filesystem, unmount_tree

pytestmark = pytest.mark.root


def test_the_mount_refuses_writes(tmp_path: Path) -> None:
    """Nothing of an image can be changed through it."""
    with mounted(make_image([[File("f", b"1")]], tmp_path), tmp_path / "mount") as tree:
        with pytest.raises(OSError, match="Read-only"):
            (tree / "f").write_bytes(b"2")
        with pytest.raises(OSError, match="Read-only"):
            (tree / "g").touch()


def test_no_loop_device_is_used(tmp_path: Path) -> None:
    """The source is the file itself."""
    with mounted(make_image([[File("f")]], tmp_path), tmp_path / "mount") as tree:
        line = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(tree) in line)

    assert line.split(" - ")[1].split()[:2] == ["erofs", str(tmp_path / "merged.erofs")]


def test_files_deleted_under_a_mount_are_still_there_through_it(tmp_path: Path) -> None:
    """A prune that comes too early hurts nobody who has mounted already."""
    image = make_image([[File("f", b"1")]], tmp_path)
    with mounted(image, tmp_path / "mount") as tree:
        for path in (image.image_path, *image.device_paths):
            path.unlink()

        assert (tree / "f").read_bytes() == b"1"


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    """And leaves no mount."""
    (tmp_path / "mount").mkdir()
    (tmp_path / "image").write_bytes(bytes(4096))

    with pytest.raises(MountFailed, match=str(tmp_path / "mount")):
        mount_erofs(tmp_path / "image", [], tmp_path / "mount")

    assert mounts_below(tmp_path) == []


def test_a_wrong_number_of_devices_is_refused(tmp_path: Path) -> None:
    """The kernel counts them."""
    image = make_image([[File("f")], [File("g")]], tmp_path)
    (tmp_path / "mount").mkdir()

    with pytest.raises(MountFailed, match="devices"):
        mount_erofs(image.image_path, image.device_paths[:1], tmp_path / "mount")


@pytest.mark.parametrize("name", ["absent", "x" * 200 + "/" + "y" * 200])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    """Whether its path fits into an option or not."""
    (tmp_path / "mount").mkdir()

    with pytest.raises(MountFailed, match="No such file"):
        mount_erofs(tmp_path / name, [], tmp_path / "mount")


def test_a_mount_is_made_private_as_often_as_one_likes(tmp_path: Path) -> None:
    """A place without a mount is an error."""
    mount_filesystem(Mount(fs_type="tmpfs", source="tmpfs", target=tmp_path))
    (tmp_path / "no mount").mkdir()

    make_private(tmp_path)
    make_private(tmp_path)
    with pytest.raises(MountFailed, match="no mount"):
        make_private(tmp_path / "no mount")
    unmount_tree(tmp_path)
