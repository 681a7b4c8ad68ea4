# SPDX-License-Identifier: Apache-2.0
"""Several images in one container, and containers in containers: the ancestor's image volumes and nested containers."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.mounts import mounts_below, unmount
from tests.support.provisioners import SMALL_TREE, files, keys, small_layout, tree_text
from worker.container_id import ContainerId
from worker.errors import InvalidArgument
from worker.provisioner import Elsewhere, Provisioner

pytestmark = [pytest.mark.root, pytest.mark.redis]

DEEP = ".".join(["pod", *(f"level{number}" for number in range(60))])


def _provision(node: Provisioner, container_id: str, image: str, **more: object) -> Mapping[str, Any]:
    answer = node.provision({"container_id": container_id, "image": image, **more})
    assert not isinstance(answer, Elsewhere)
    return answer


def _text(rootfs: str) -> str:
    return tree_text(rootfs)["new"]


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """Four images that share no layer."""
    return [small_layout(tmp_path / f"image{number}", f"text{number}") for number in range(4)]


def test_many_images_of_one_container_are_provisioned_at_once(node: Provisioner, images: list[str]) -> None:
    """Each under its own name, writable or not, all of them recorded; the ancestor's record had the last one only."""
    wanted = {f"volume{number}": image for number, image in enumerate(images * 2)}
    with ThreadPoolExecutor(8) as pool:
        infos = list(
            pool.map(
                lambda item: _provision(node, "c1", item[1], name=item[0], read_only=item[0] in {"volume1", "volume6"}),
                wanted.items(),
            )
        )

    assert [_text(info["rootfs"]) for info in infos] == [f"text{number % 4}" for number in range(8)]
    assert len({info["rootfs"] for info in infos}) == 8
    for info in infos:
        new = Path(info["rootfs"]) / "written"
        if info["name"] in {"volume1", "volume6"}:
            with pytest.raises(OSError, match="Read-only"):
                new.touch()
        else:
            new.touch()
    view = node.node.containers.get(ContainerId.parse("c1"))
    assert view is not None
    assert set(view.images) == set(wanted)
    assert node.destroy({"container_id": "c1"}) is True
    assert mounts_below(node.node.work.work_dir) == []


def test_layers_of_all_images_of_a_container_outlive_a_prune(
    node: Provisioner, images: list[str], redis_client: redis.Redis
) -> None:
    """Also of its children's, also when Redis knows nothing of them: the ancestor pruned the volumes' layers."""
    infos = [_provision(node, "c1", image, name=f"volume{number}") for number, image in enumerate(images[:3])]
    infos.append(_provision(node, "c1.child", images[3]))
    redis_client.flushall()

    answer = node.prune({})
    unmount(mounts_below(node.node.work.work_dir))
    node.recover({})

    assert not isinstance(answer, Elsewhere)
    assert answer["images"] == answer["layers"] == []
    assert [_text(info["rootfs"]) for info in infos] == [f"text{number}" for number in range(4)]


def test_volumes_go_one_image_at_a_time_only_with_their_container(node: Provisioner, images: list[str]) -> None:
    """After the container's destroy all its images can be pruned, and not before."""
    for number, image in enumerate(images):
        _provision(node, "c1", image, name=f"volume{number}")
    before = node.prune({"dry_run": True})
    node.destroy({"container_id": "c1"})
    after = node.prune({})

    assert not isinstance(before, Elsewhere)
    assert not isinstance(after, Elsewhere)
    assert (len(before["images"]), len(after["images"])) == (0, 4)


@pytest.mark.parametrize("backend", ["overlay", "copy"])
def test_ephemeral_volumes_are_listed_again_after_recovery(
    node: Provisioner, images: list[str], redis_client: redis.Redis, backend: str
) -> None:
    """Exact paths, of image volumes and of nested containers too: the ancestor's glob found none of those."""
    places = [("c1", "rootfs"), ("c1", "data"), ("c1.child", "rootfs"), ("c1.child.deep", "data")]
    infos = [_provision(node, where, images[0], name=name, backend=backend) for where, name in places]
    read_only = _provision(node, "c1", images[0], name="fixed", read_only=True, backend=backend)
    redis_client.flushall()
    unmount(mounts_below(node.node.work.work_dir))

    node.recover({})

    for (where, name), info in zip(places, infos, strict=True):
        paths = node.node.work.rootfs_paths(ContainerId.parse(where).parts, name=name)
        expected = [str(paths.upper_dir), str(paths.work_dir)] if backend == "overlay" else []
        view = node.node.containers.get(ContainerId.parse(where))
        assert info["ephemeral_volumes"] == expected
        assert all(Path(volume).is_dir() for volume in expected)
        assert _provision(node, where, images[0], name=name, backend=backend) == info
        assert view is not None
        assert view.infos[name].count('"ephemeral_volumes"') == 1
    assert read_only["ephemeral_volumes"] == []


def test_what_a_container_writes_is_in_its_volumes(node: Provisioner, images: list[str]) -> None:
    """A quota on them counts it."""
    info = _provision(node, "c1", images[0], backend="overlay")

    (Path(info["rootfs"]) / "written").write_bytes(bytes(100_000))

    upper, work = (Path(volume) for volume in info["ephemeral_volumes"])
    assert (upper / "written").stat().st_size == 100_000
    assert upper.stat().st_dev == work.stat().st_dev


def test_a_container_may_be_nested_deep(node: Provisioner, images: list[str], redis_client: redis.Redis) -> None:
    """Sixty levels, only the innermost with an image: it recovers by itself and goes with its outermost parent."""
    info = _provision(node, DEEP, images[0])
    redis_client.flushall()
    unmount(mounts_below(node.node.work.work_dir))

    answer = node.recover({})

    assert not isinstance(answer, Elsewhere)
    assert answer["remounted"] == [DEEP]
    assert _text(info["rootfs"]) == "text0"
    assert node.destroy({"container_id": "pod"}) is True
    assert files(node.node.work.containers_dir) == []
    assert keys(redis_client) == set()


def test_parent_and_child_come_back_and_go_by_themselves(node: Provisioner, image: str) -> None:
    """The ancestor's RecoverNestedContainer: recovered, the child provisioned again, destroyed, then its parent."""
    for container_id in ("pod", "pod.child"):
        _provision(node, container_id, image)
    node.recover({"known_container_ids": ["pod", "pod.child"]})
    second = _provision(node, "pod.child", image, name="second")

    assert tree_text(second["rootfs"]) == SMALL_TREE
    assert node.destroy({"container_id": "pod.child"}) is True
    assert not node.node.work.container_dir(("pod", "child")).exists()
    assert node.destroy({"container_id": "pod"}) is True
    assert not node.node.work.container_dir(("pod",)).exists()


def test_a_parent_without_an_image_is_destroyed_like_any_other(node: Provisioner, image: str) -> None:
    """The ancestor's RecoverNestedContainerNoParentImage: true for the child, and true for the parent."""
    _provision(node, "pod.a", image)
    _provision(node, "pod.b", image)
    node.recover({"known_container_ids": ["pod", "pod.a", "pod.b"]})

    assert node.destroy({"container_id": "pod.a"}) is True
    assert node.node.work.container_dir(("pod", "b")).is_dir()
    assert node.destroy({"container_id": "pod"}) is True
    assert not node.node.work.container_dir(("pod",)).exists()


@pytest.mark.parametrize("verb", ["provision", "destroy"])
def test_an_id_that_the_filesystem_cannot_name_is_refused(
    node: Provisioner, image: str, redis_client: redis.Redis, verb: str
) -> None:
    """A path has 4,095 bytes; whatever does not fit leaves nothing behind, on disk or in Redis."""
    keywords = {"container_id": ".".join(["a"] * 512), **({"image": image} if verb == "provision" else {})}

    with pytest.raises(InvalidArgument, match="container_id"):
        getattr(node, verb)(keywords)

    assert files(node.node.work.containers_dir) == []
    assert keys(redis_client) == set()
