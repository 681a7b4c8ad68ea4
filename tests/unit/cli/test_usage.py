# SPDX-License-Identifier: Apache-2.0
"""What a real node's containers and images take, as `provisioner du` tells it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.disk import du
from tests.support.images import build_image, layer
from tests.support.layouts import write_layout
from tests.support.mounts import mounts_below, unmount
from tests.support.provisioners import provisioner
from tests.support.tar import File
from tests.unit.cli.conftest import Run
from worker.cli.usage import ContainerUsage, NodeUsage, measure_containers, measure_node
from worker.container_id import ContainerId
from worker.errors import InvalidArgument
from worker.linux.disk_usage import DiskMeter
from worker.provisioner import Provisioner
from worker.settings import Settings

pytestmark = [pytest.mark.root, pytest.mark.redis]

KIB = 1024
BASE = layer(File("base", os.urandom(300 * KIB)))
APP = build_image([BASE, layer(File("app", os.urandom(100 * KIB)))])
OTHER = build_image([BASE, layer(File("other", os.urandom(50 * KIB)))])


@pytest.fixture(params=["erofs", "directory"])
def node(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Iterator[Provisioner]:
    """A node with layers of either kind."""
    with provisioner(tmp_path, redis_url, layer_format=request.param) as made:
        yield made


@pytest.fixture
def app(tmp_path: Path) -> str:
    """An image of two layers."""
    return f"oci:{write_layout(tmp_path / 'app', {'latest': APP})}:latest"


@pytest.fixture
def other(tmp_path: Path) -> str:
    """An image that shares the lower one."""
    return f"oci:{write_layout(tmp_path / 'other', {'latest': OTHER})}:latest"


def measured(node: Provisioner) -> NodeUsage:
    """Measure the node."""
    return measure_node(node.node.settings)


def only(containers: tuple[ContainerUsage, ...], container_id: str) -> ContainerUsage:
    """Return one of them."""
    (found,) = [each for each in containers if each.container_id == container_id]
    return found


def test_what_was_written_into_a_rootfs_is_the_containers(node: Provisioner, app: str) -> None:
    """Layers are not; the part that a quota counts is told by the volumes of the ProvisionInfo."""
    info = node.provision({"container_id": "c1", "image": app})
    assert isinstance(info, dict)
    before = only(measured(node).containers, "c1")
    (Path(info["rootfs"]) / "written").write_bytes(os.urandom(200 * KIB))

    after = only(measured(node).containers, "c1")

    assert before.disk_bytes < 64 * KIB
    assert 200 * KIB <= after.disk_bytes - before.disk_bytes < 264 * KIB
    (rootfs,) = after.rootfses
    assert (rootfs.name, rootfs.image, rootfs.backend) == ("rootfs", info["image"], info["backend"])
    assert [volume.path for volume in rootfs.ephemeral_volumes] == info["ephemeral_volumes"]
    assert sum(volume.disk_bytes for volume in rootfs.ephemeral_volumes) >= 200 * KIB


def test_a_copied_rootfs_counts_whole_and_a_bound_one_not_at_all(node: Provisioner, app: str) -> None:
    """Read-only or not, and each rootfs of a container by its name."""
    for name, options in {"writable": {}, "read": {"read_only": True}}.items():
        node.provision({"container_id": "c1", "name": name, "image": app, "backend": "copy", **options})
    if node.node.settings.layer_format == "erofs":
        node.provision({"container_id": "c1", "name": "bound", "image": app, "backend": "bind"})

    container = only(measured(node).containers, "c1")

    sizes = {rootfs.name: rootfs.disk_bytes for rootfs in container.rootfses}
    assert sizes["writable"] >= 400 * KIB
    assert sizes["read"] >= 400 * KIB
    assert sizes.get("bound", 0) < 64 * KIB
    assert container.disk_bytes == sum(sizes.values())


def test_ephemeral_volumes_are_told_again_after_a_reboot(
    node: Provisioner, app: str, redis_client: redis.Redis
) -> None:
    """Nothing is mounted and Redis is empty; recover brings back the same answer, and what was written counts."""
    info = node.provision({"container_id": "c1", "image": app})
    assert isinstance(info, dict)
    (Path(info["rootfs"]) / "written").write_bytes(os.urandom(200 * KIB))
    unmount(mounts_below(node.node.work.work_dir))
    redis_client.flushall()

    node.recover({}, is_start=True)
    again = node.provision({"container_id": "c1", "image": app})

    assert isinstance(again, dict)
    assert again["ephemeral_volumes"] == info["ephemeral_volumes"] != []
    (rootfs,) = only(measured(node).containers, "c1").rootfses
    assert [volume.path for volume in rootfs.ephemeral_volumes] == info["ephemeral_volumes"]
    assert rootfs.ephemeral_volumes[0].disk_bytes >= 200 * KIB


def test_shared_layers_are_told_from_exclusive_ones(node: Provisioner, app: str, other: str) -> None:
    """As `du` has the layers' directories; in the node's sum the shared one counts once."""
    for image in (app, other):
        node.pull({"image": image})

    usage = measured(node)

    first, second = usage.images
    shelf = node.node.store.paths.layers_dir / str(node.node.settings.layer_format)
    assert first.shared_bytes == second.shared_bytes == du(shelf / BASE.diff_id)
    assert first.exclusive_bytes == du(shelf / APP.layers[1].diff_id) + first.own_bytes
    assert first.disk_bytes == first.shared_bytes + first.exclusive_bytes
    assert [each.images for each in first.layers] == [2, 1]
    parts = first.disk_bytes + second.disk_bytes - first.shared_bytes
    assert usage.disk_bytes == parts + usage.staging_bytes + usage.partial_bytes + usage.trash_bytes
    assert usage.unused_layers_bytes == 0


def test_layers_of_no_image_are_told(node: Provisioner, app: str, tmp_path: Path) -> None:
    """The next prune removes them."""
    node.pull({"image": app})
    image_dir = next(node.node.store.paths.images_dir.iterdir())
    image_dir.rename(tmp_path / "gone")

    usage = measured(node)

    assert usage.images == ()
    assert usage.unused_layers_bytes >= 400 * KIB
    assert usage.disk_bytes >= usage.unused_layers_bytes


def test_nested_containers_are_told_apart(node: Provisioner, app: str) -> None:
    """A parent does not count its children; who asks for the parent gets them too."""
    for container_id in ("pod", "pod.side", "other"):
        node.provision({"container_id": container_id, "image": app})
    (Path(node.node.work.rootfs_paths(("pod", "side"), name="rootfs").upper_dir) / "f").write_bytes(bytes(200 * KIB))

    pod = measure_containers(node.node.work, DiskMeter(), only=ContainerId.parse("pod"))

    assert [each.container_id for each in pod] == ["pod", "pod.side"]
    assert pod[0].disk_bytes < 64 * KIB
    assert pod[1].disk_bytes >= 200 * KIB


def test_a_corrupt_record_hides_no_bytes(node: Provisioner, app: str) -> None:
    """Nobody knows whose image it was, but what it takes is there."""
    node.provision({"container_id": "c1", "image": app, "backend": "copy"})
    record_path = node.node.work.record_path(("c1",))
    sound = record_path.read_bytes()
    record_path.write_bytes(b"{")

    container = only(measured(node).containers, "c1")

    record_path.write_bytes(sound)
    assert str(record_path) in container.error
    assert container.disk_bytes >= 400 * KIB
    assert container.rootfses[0].image == ""


def test_du_shows_containers_and_images(node: Provisioner, app: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As tables and as JSON, all or one container."""
    node.provision({"container_id": "c1", "image": app})
    monkeypatch.setenv("PROVISIONER_WORK_DIR", str(node.node.settings.work_dir))
    monkeypatch.setenv("PROVISIONER_STORE_DIR", str(node.node.settings.store_dir))

    document = run("du", "--json").document
    one = run("du", "c1", "--json").document
    text, one_text, none = run("du").out, run("du", "c1").out, run("du", "c2")

    assert [container["container_id"] for container in document["containers"]] == ["c1"]
    assert document["images"][0]["disk_bytes"] >= 400 * KIB
    assert one == {"containers": document["containers"], "unreadable": 0}
    for line in ("1 container", "c1", "1 image", "all together"):
        assert line in text
    assert "1 container" in one_text
    assert "image" not in one_text.splitlines()[0]
    assert (none.code, "no container c2" in none.err) == (1, True)


def test_a_directory_no_worker_made_is_named(tmp_path: Path) -> None:
    """And stays as it was."""
    with pytest.raises(InvalidArgument, match="PROVISIONER_WORK_DIR"):
        measure_node(Settings(work_dir=tmp_path / "work", store_dir=tmp_path / "store"))

    assert list(tmp_path.iterdir()) == []
