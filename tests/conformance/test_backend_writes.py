# SPDX-License-Identifier: Apache-2.0
"""Writing to a rootfs, or being refused to, whichever backend it is from."""

import errno
import os
import shutil
import socket
import stat
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.conformance.site import Site, names
from tests.support.trees import File, Tree, stack, tree_snapshot

pytestmark = pytest.mark.root


def test_writes_stay_out_of_the_layers(writable: Site) -> None:
    """Changing, deleting, renaming and adding in a rootfs shows there, and neither in its layers nor in its twin."""
    trees: list[Tree] = [{"f": File(b"old"), "d/g": File(), "e/h": File()}, {"d/i": File()}]
    layers = writable.layers(trees)
    before = [tree_snapshot(layer.path) for layer in layers]
    mine, twin = writable.home("mine"), writable.home("twin")
    for paths in (mine, twin):
        writable.backend.provision(layers, paths, is_read_only=False)
    rootfs = mine.rootfs_dir

    (rootfs / "f").write_bytes(b"new")
    (rootfs / "f").chmod(0o600)
    os.chown(rootfs / "f", 1, 2)
    (rootfs / "d/g").unlink()
    (rootfs / "e").rename(rootfs / "moved")
    (rootfs / "d/i").rename(rootfs / "d/j")
    (rootfs / "added").mkdir()
    os.link(rootfs / "f", rootfs / "added/link")

    assert sorted(tree_snapshot(rootfs)) == [".", "added", "added/link", "d", "d/j", "f", "moved", "moved/h"]
    assert (rootfs / "added/link").read_bytes() == b"new"
    assert ((rootfs / "f").stat().st_uid, stat.S_IMODE((rootfs / "f").stat().st_mode)) == (1, 0o600)
    assert tree_snapshot(twin.rootfs_dir) == stack(trees)
    assert [tree_snapshot(layer.path) for layer in layers] == before


def test_directory_made_over_a_deleted_one_is_empty(writable: Site) -> None:
    """What a layer had in a directory does not come back with a new one of its name."""
    rootfs = writable.show([{"d/old": File(), "d/sub/old": File()}])

    shutil.rmtree(rootfs / "d")
    (rootfs / "d").mkdir()

    assert names(rootfs / "d") == []


def test_sockets_and_devices_can_be_made(writable: Site) -> None:
    """A rootfs is a filesystem like any other."""
    rootfs = writable.show([{"f": File()}])

    os.mknod(rootfs / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(rootfs / "socket"))

    assert (rootfs / "null").write_bytes(b"into nothing") == 12
    assert stat.S_ISSOCK((rootfs / "socket").stat().st_mode)


CHANGES: dict[str, Callable[[Path], object]] = {
    "write": lambda rootfs: (rootfs / "f").write_bytes(b"x"),
    "create": lambda rootfs: (rootfs / "new").touch(),
    "delete": lambda rootfs: (rootfs / "f").unlink(),
    "chmod": lambda rootfs: (rootfs / "f").chmod(0o777),
    "chown": lambda rootfs: os.chown(rootfs / "f", 1, 1),
    "rename": lambda rootfs: (rootfs / "f").rename(rootfs / "g"),
    "mkdir": lambda rootfs: (rootfs / "new").mkdir(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_read_only_rootfs_refuses_every_change(site: Site, change: str) -> None:
    """Root itself gets EROFS, and nothing changes."""
    tree: Tree = {"f": File(b"kept"), "d/g": File()}
    paths = site.home()
    volumes = site.backend.provision([site.layer(tree)], paths, is_read_only=True)

    with pytest.raises(OSError, match="Read-only") as refusal:
        CHANGES[change](paths.rootfs_dir)

    assert refusal.value.errno == errno.EROFS
    assert tree_snapshot(paths.rootfs_dir) == stack([tree])
    assert volumes == ()


def test_says_whether_it_can_be_written_to(site: Site) -> None:
    """`is_writable` is what happens without `is_read_only`."""
    paths = site.home()
    site.backend.provision([site.layer({"f": File()})], paths, is_read_only=False)

    with nullcontext() if site.backend.is_writable else pytest.raises(OSError, match="Read-only"):
        (paths.rootfs_dir / "new").touch()

    assert (paths.rootfs_dir / "new").exists() == site.backend.is_writable


def test_volumes_hold_what_was_written(writable: Site) -> None:
    """What counts towards a quota is known beforehand, exists, and takes what the container writes."""
    paths = writable.home()

    volumes = writable.backend.provision([writable.layer({"f": File()})], paths, is_read_only=False)
    (paths.rootfs_dir / "written").write_bytes(b"by the container")

    assert volumes == writable.backend.ephemeral_volumes(paths, is_read_only=False)
    assert all(volume.is_dir() for volume in volumes)
    assert not volumes or any((volume / "written").exists() for volume in volumes)
