# SPDX-License-Identifier: Apache-2.0
"""A copy on a filesystem with reflinks: through the whole of provision, it shares the layers' blocks."""

import os
from pathlib import Path

import pytest

from tests.support.filesystems import loop_filesystem, shared_bytes
from tests.support.images import build_image, layer
from tests.support.layouts import write_layout
from tests.support.provisioners import provisioner
from tests.support.tar import File
from worker.provisioner import Elsewhere

pytestmark = [pytest.mark.root, pytest.mark.redis]

BIG = os.urandom(8 << 20)
MKFS = {"btrfs": ["mkfs.btrfs", "-q"], "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"]}


def _image(directory: Path) -> str:
    layers = [layer(File("big", BIG), compression="none"), layer(File("upper", BIG[::-1]), compression="none")]
    write_layout(directory, {"latest": build_image(layers)})
    return f"oci:{directory}:latest"


@pytest.mark.parametrize("kind", MKFS)
def test_a_copied_rootfs_shares_its_blocks_with_the_layers(tmp_path: Path, redis_url: str, kind: str) -> None:
    """Extents are shared (FIEMAP), hardly any space is taken, and what is written in the rootfs stays there."""
    image = _image(tmp_path / "layout")
    with loop_filesystem(tmp_path, *MKFS[kind]) as filesystem, provisioner(filesystem, redis_url) as node:
        node.provision({"container_id": "first", "image": image, "backend": "copy"})
        os.sync()
        before = os.statvfs(filesystem)

        info = node.provision({"container_id": "c1", "image": image, "backend": "copy"})

        assert not isinstance(info, Elsewhere)
        rootfs = Path(info["rootfs"])
        os.sync()
        after = os.statvfs(filesystem)
        assert info["layer_format"] == "directory"
        assert (rootfs / "big").read_bytes() == BIG
        assert (rootfs / "upper").read_bytes() == BIG[::-1]
        assert shared_bytes(rootfs / "big") >= len(BIG)
        assert shared_bytes(rootfs / "upper") >= len(BIG)
        assert (before.f_bfree - after.f_bfree) * after.f_frsize < len(BIG) // 4
        with (rootfs / "big").open("r+b") as file:
            file.write(b"the container's")
        twin = node.provision({"container_id": "c2", "image": image, "backend": "copy"})
        assert not isinstance(twin, Elsewhere)
        assert (Path(twin["rootfs"]) / "big").read_bytes() == BIG
        for container_id in ("first", "c1", "c2"):
            assert node.destroy({"container_id": container_id}) is True


def test_without_reflinks_a_copy_takes_the_layers_as_they_are(tmp_path: Path, redis_url: str) -> None:
    """Between two filesystems no block can be shared, whatever either of them can: the format is the usual one."""
    image = _image(tmp_path / "layout")
    with (
        loop_filesystem(tmp_path, *MKFS["xfs"]) as filesystem,
        provisioner(filesystem, redis_url, store_dir=tmp_path / "store") as node,
    ):
        info = node.provision({"container_id": "c1", "image": image, "backend": "copy"})

        assert not isinstance(info, Elsewhere)
        assert info["layer_format"] == node.node.layer_format(node.node.backends["overlay"])
        assert shared_bytes(Path(info["rootfs"]) / "big") == 0
        assert (Path(info["rootfs"]) / "big").read_bytes() == BIG
