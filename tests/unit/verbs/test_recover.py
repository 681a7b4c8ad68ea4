# SPDX-License-Identifier: Apache-2.0
"""recover: mounts, records, refs and Redis agree again, whatever happened."""

from pathlib import Path

import pytest
import redis

from tests.support.mounts import mounts_below, unmount
from tests.support.provisioners import SMALL_TREE, files, keys, tree_text
from worker.provisioner import Elsewhere, Provisioner

pytestmark = [pytest.mark.root, pytest.mark.redis]


def _provision(node: Provisioner, container_id: str, image: str, **more: object) -> Path:
    answer = node.provision({"container_id": container_id, "image": image, **more})
    assert not isinstance(answer, Elsewhere)
    return Path(answer["rootfs"])


def _recover(node: Provisioner, **keywords: object) -> dict[str, object]:
    answer = node.recover(keywords)
    assert not isinstance(answer, Elsewhere)
    return answer


def test_what_is_in_order_is_kept(node: Provisioner, image: str) -> None:
    """Nothing changes, and it can be run as often as one likes."""
    _provision(node, "c1", image)
    _provision(node, "pod.a", image)

    expected = {"node": "n1", "kept": ["c1", "pod.a"], "remounted": [], "destroyed": [], "cleaned": 0}

    assert _recover(node) == expected
    assert _recover(node) == expected


@pytest.mark.parametrize("backend", ["overlay", "bind", "copy"])
def test_after_a_reboot_rootfses_are_back_with_what_was_written(
    node: Provisioner, tmp_path: Path, image: str, backend: str
) -> None:
    """Unmounting everything is what a reboot does to the kernel's side."""
    if backend == "bind":
        image = _single_layer_layout(tmp_path / "single")
    rootfs = _provision(node, "c1", image, backend=backend)
    if backend != "bind":
        (rootfs / "mine").write_text("kept")
    before = tree_text(str(rootfs))
    unmount(mounts_below(node.node.work.work_dir))

    answer = _recover(node)

    assert answer["remounted" if backend != "copy" else "kept"] == ["c1"]
    assert tree_text(str(rootfs)) == before
    assert node.destroy({"container_id": "c1"}) is True


def _single_layer_layout(directory: Path) -> str:
    from tests.support.images import build_image, layer  # noqa: PLC0415 - for this one case
    from tests.support.layouts import write_layout  # noqa: PLC0415
    from tests.support.tar import File  # noqa: PLC0415

    write_layout(directory, {"latest": build_image([layer(File("only", b"one"))])})
    return f"oci:{directory}:latest"


def test_an_emptied_redis_is_rebuilt(node: Provisioner, image: str, redis_client: redis.Redis) -> None:
    """Containers, their rootfses and answers are as before."""
    _provision(node, "c1", image)
    _provision(node, "c1", image, name="data")
    _provision(node, "pod.a", image)
    before = {view.container_id: (view.state, view.images) for view in node.node.containers.list()}
    again = node.provision({"container_id": "c1", "image": image})
    redis_client.flushall()

    _recover(node)

    assert {view.container_id: (view.state, view.images) for view in node.node.containers.list()} == before
    assert node.provision({"container_id": "c1", "image": image}) == again


def test_unknown_containers_are_destroyed_and_parents_of_known_ones_kept(node: Provisioner, image: str) -> None:
    """A container is known by itself or through one nested in it."""
    for container_id in ("c1", "c2", "pod", "pod.a", "pod.b"):
        _provision(node, container_id, image)

    answer = _recover(node, known_container_ids=["c1", "pod.a"])

    assert answer["kept"] == ["c1", "pod.a", "pod"]
    assert answer["destroyed"] == ["c2", "pod.b"]
    assert len(mounts_below(node.node.work.containers_dir)) == 3


def test_without_known_containers_none_is_destroyed_with_an_empty_list_all_are(
    node: Provisioner, image: str, redis_client: redis.Redis
) -> None:
    """None and [] differ."""
    _provision(node, "c1", image)
    assert _recover(node)["destroyed"] == []

    assert _recover(node, known_container_ids=[])["destroyed"] == ["c1"]

    assert files(node.node.work.containers_dir) == []
    assert keys(redis_client) == set()


def test_a_state_without_a_container_is_forgotten(
    node: Provisioner, image: str, redis_client: redis.Redis, layer_format: str
) -> None:
    """The work directory was lost; the schedulers' view follows."""
    _provision(node, "c1", image)
    unmount(mounts_below(node.node.work.work_dir))
    node.node.work.container_dir(("c1",)).rename(node.node.work.trash_dir / "lost")

    answer = _recover(node)

    assert answer["cleaned"] == (3 if layer_format == "erofs" else 2), "the state, the ref, and the image's mount"
    assert keys(redis_client) == set()
    assert files(node.node.work.trash_dir) == []


def test_a_lost_ref_is_written_again(node: Provisioner, image: str) -> None:
    """A container on disk keeps its image even if its ref was lost."""
    rootfs = _provision(node, "c1", image)
    for digest in node.node.store.images.digests():
        for path, _ in node.node.store.images.refs(digest):
            path.unlink()

    _recover(node)
    node.prune({})

    assert tree_text(str(rootfs)) == SMALL_TREE


def test_damage_to_one_container_does_not_stop_the_others(node: Provisioner, image: str) -> None:
    """Corrupt and empty records, stray files and half-made directories are all survived."""
    rootfs = _provision(node, "good", image)
    _provision(node, "corrupt", image)
    _provision(node, "empty", image)
    node.node.work.record_path(("corrupt",)).write_bytes(b'{"rootfses": 7}')
    node.node.work.record_path(("empty",)).write_bytes(b"")
    (node.node.work.containers_dir / "not a container").mkdir()
    (node.node.work.containers_dir / "stray").write_text("x")
    node.node.work.rootfses_dir(("half",)).mkdir(parents=True)
    node.node.work.container_lock_path(("half",)).touch()
    unmount(mounts_below(rootfs))

    answer = _recover(node)

    assert answer["remounted"] == ["good"]
    assert answer["destroyed"] == ["corrupt", "empty"]
    assert tree_text(str(rootfs)) == SMALL_TREE
    assert not node.node.work.container_dir(("half",)).exists()


def test_a_backend_no_longer_here_is_reported_and_kept(
    node: Provisioner, image: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The ancestor refused to start at all."""
    rootfs = _provision(node, "c1", image)
    record = node.node.work.record_path(("c1",))
    record.write_text(record.read_text().replace('"overlay"', '"zfs"'))

    answer = _recover(node)

    assert answer["kept"] == []
    assert "zfs" in caplog.text
    assert tree_text(str(rootfs)) == SMALL_TREE
    record.write_text(record.read_text().replace('"zfs"', '"overlay"'))


def test_leftovers_of_the_store_are_swept(node: Provisioner) -> None:
    """Staging without a maker and trash go; the ancestor leaked both."""
    paths = node.node.store.paths
    (paths.staging_dir / "x").mkdir()
    (paths.staging_dir / "x.lock").touch()
    (paths.trash_dir / "y").mkdir()
    (node.node.work.trash_dir / "z").mkdir()

    assert _recover(node)["cleaned"] == 1

    for directory in (paths.staging_dir, paths.trash_dir, node.node.work.trash_dir):
        assert files(directory) == []
