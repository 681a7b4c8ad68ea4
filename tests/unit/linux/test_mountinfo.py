# SPDX-License-Identifier: Apache-2.0
"""Mountinfo is read as the kernel writes it."""

from pathlib import Path

import pytest

from worker.linux.mount import Mount, mount_filesystem, unmount_tree
from worker.linux.mountinfo import mount_that_holds, mounts_at_or_below, parse_mounts, read_mounts

TEXT = rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 27 0:30 /sub/dir /w/a ro,nosuid,nodev shared:7 master:3 - overlay overlay rw,lowerdir=/l\040x:/m
31 30 0:31 / /w/a rw - tmpfs tmpfs rw
33 31 0:33 / /w/a/b\011c\012d\134e rw unbindable - tmpfs tmpfs\040source rw
34 27 0:34 / /w/ab rw - tmpfs tmpfs rw
35 27 0:35 / /empty rw - tmpfs none 
"""  # noqa: W291 - the kernel leaves a blank before empty options


def test_fields_are_told_apart() -> None:
    """The optional fields between the fixed ones vary in number."""
    overlay = list(parse_mounts(TEXT))[2]

    assert (overlay.mount_id, overlay.parent_id, overlay.device, overlay.root) == (30, 27, "0:30", "/sub/dir")
    assert overlay.path == Path("/w/a")
    assert overlay.options == ("ro", "nosuid", "nodev")
    assert overlay.propagation == ("shared:7", "master:3")
    assert (overlay.fs_type, overlay.source) == ("overlay", "overlay")
    assert overlay.super_options == ("rw", "lowerdir=/l x:/m")
    assert overlay.is_shared
    assert overlay.is_slave


def test_private_mount_is_neither_shared_nor_slave() -> None:
    """No optional field, or one about something else."""
    proc, *_ = parse_mounts(TEXT)
    unbindable = list(parse_mounts(TEXT))[4]

    assert [proc.is_shared, proc.is_slave, unbindable.is_shared, unbindable.is_slave] == [False] * 4


def test_escapes_are_undone() -> None:
    """Blank, tab, newline and backslash in a path or a source."""
    odd = list(parse_mounts(TEXT))[4]

    assert odd.path == Path("/w/a/b\tc\nd\\e")
    assert odd.source == "tmpfs source"


def test_mounts_below_a_path_come_in_the_order_of_unmounting() -> None:
    """What is mounted on another mount, or stacked upon it, comes before it; neighbours do not count."""
    found = mounts_at_or_below(Path("/w/a"), list(parse_mounts(TEXT)))

    assert [mount.mount_id for mount in found] == [33, 31, 30]


def test_reads_this_namespace() -> None:
    """The root is always there."""
    assert any(mount.path == Path("/") for mount in read_mounts())


@pytest.mark.root
@pytest.mark.parametrize("name", ["plain", "with blank", "with\\backslash", "with\nnewline", "with#hash", "häßlich"])
def test_finds_real_mounts_by_path(tmp_path: Path, name: str) -> None:
    """Asked of the kernel, for names it escapes and names it does not."""
    (tmp_path / name).mkdir()
    (tmp_path / f"{name}-neighbour").mkdir()
    for place in (tmp_path / name, tmp_path / f"{name}-neighbour"):
        mount_filesystem(Mount(fs_type="tmpfs", source="mine", target=place))

    found = mounts_at_or_below(tmp_path / name)
    unmount_tree(tmp_path)

    assert [(mount.path, mount.source) for mount in found] == [(tmp_path / name, "mine")]
    assert mounts_at_or_below(tmp_path) == ()


@pytest.mark.root
def test_a_path_lies_on_the_innermost_mount_made_last(tmp_path: Path) -> None:
    """Of several upon each other, the one that is seen."""
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    outer = mount_that_holds(below)
    for source in ("first", "second"):
        mount_filesystem(Mount(fs_type="tmpfs", source=source, target=tmp_path / "a"))
        (tmp_path / "a" / "b").mkdir()
    inner = mount_that_holds(below)
    unmount_tree(tmp_path)

    assert inner.source == "second"
    assert mount_that_holds(below) == outer
