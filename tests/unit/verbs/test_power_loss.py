# SPDX-License-Identifier: Apache-2.0
"""What was answered is true after a power cut at that very moment, on each filesystem that a node may have."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.filesystems import after_power_loss, loop_filesystem
from tests.support.provisioners import SMALL_TREE, files, make_settings, provisioner, small_layout, tree_text
from worker.provisioner import Elsewhere
from worker.records import read_record
from worker.runtime import make_provisioner

pytestmark = [pytest.mark.root, pytest.mark.redis, pytest.mark.btrfs]

# None of them writes anything by itself for as long as a test takes.
MKFS = {"ext4": ("mkfs.ext4", "-q"), "xfs": ("mkfs.xfs", "-q"), "btrfs": ("mkfs.btrfs", "-q")}
OPTIONS = {"ext4": "loop,commit=900", "xfs": "loop", "btrfs": "loop,commit=900"}


class Survivor:
    """What a power cut left of a node's directories."""

    def __init__(self, directory: Path, redis_url: str) -> None:
        self.store_dir, self.containers_dir = directory / "store", directory / "work" / "containers"
        settings = make_settings(directory, redis_url, cluster="survivor", work_dir=directory / "other")
        self._node = make_provisioner(settings)

    def rootfses(self, container_id: str) -> dict[str, str]:
        """Return what the container's record says: the backend of each rootfs."""
        record = read_record(self.containers_dir / container_id / "record.json")
        return {name: entry.info.backend for name, entry in record.rootfses.items()}

    def checked_layers(self) -> int:
        """Read the whole store and return how many layers are as they must be."""
        verified = self._node.verify({})
        assert not isinstance(verified, Elsewhere)
        assert verified["problems"] == []
        return int(verified["checked_layers"])


@pytest.mark.parametrize("kind", MKFS)
def test_answers_outlive_a_power_cut(tmp_path: Path, redis_url: str, layer_format: str, kind: str) -> None:
    """A rootfs is recorded and its layers whole; what was destroyed or pruned does not come back."""
    image = small_layout(tmp_path / "layout")

    @contextmanager
    def power_cut() -> Iterator[Survivor]:
        # The copy has the identity of the original, which is mounted: XFS minds.
        with after_power_loss(tmp_path, options="loop,nouuid" if kind == "xfs" else "loop") as directory:
            yield Survivor(directory, redis_url)

    with (
        loop_filesystem(tmp_path, *MKFS[kind], options=OPTIONS[kind]) as disk,
        provisioner(disk, redis_url, layer_format=layer_format) as node,
    ):
        node.pull({"image": image})
        with power_cut() as left:
            assert left.checked_layers() == 2
        for backend in ("overlay", "copy"):
            node.provision({"container_id": backend, "image": image, "backend": backend})
            with power_cut() as left:
                assert left.rootfses(backend) == {"rootfs": backend}
        with power_cut() as left:
            assert left.checked_layers() == 2
            assert tree_text(left.containers_dir / "copy/rootfses/rootfs/rootfs") == SMALL_TREE
        for backend in ("overlay", "copy"):
            node.provision({"container_id": f"{backend}.child", "image": image})
            assert node.destroy({"container_id": backend}) is True
            with power_cut() as left:
                assert not (left.containers_dir / backend).exists()
        node.prune({})
        with power_cut() as left:
            assert files(left.store_dir / "images") == []
            assert left.checked_layers() == 0
