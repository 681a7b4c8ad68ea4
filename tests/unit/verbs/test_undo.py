# SPDX-License-Identifier: Apache-2.0
"""What a revoked provision began is undone where it began, unless it was answered or somebody else goes on with it."""

import dataclasses

import pytest
import redis

from tests.support.killing import count_lines, run_killed
from tests.support.mounts import mounts_below
from tests.support.provisioners import SMALL_TREE, files, keys, tree_text
from worker.container_id import ContainerId
from worker.errors import ProvisionUnderWay
from worker.oci.digest import Digest
from worker.provisioner import Elsewhere, Provisioner
from worker.records import read_record, write_record
from worker.runtime import make_provisioner
from worker.store.images import RefOwner

pytestmark = [pytest.mark.root, pytest.mark.redis]


def _forget_the_answer(node: Provisioner, image: str) -> None:
    """Bring the container to where a provision stands that has mounted and has not told anybody."""
    container_id = ContainerId.parse("c1")
    node.node.containers.restore(container_id, node="n1", generation="", rootfses={})
    begun = node.node.containers.begin_provision(container_id, name="rootfs", image=image, node="n1", request=image)
    path = node.node.work.record_path(("c1",))
    write_record(path, dataclasses.replace(read_record(path), generation=begun.generation))


def test_what_was_mounted_and_not_answered_goes(node: Provisioner, image: str, redis_client: redis.Redis) -> None:
    """Mount, record, ref and state."""
    keywords = {"container_id": "c1", "image": image}
    info = node.provision(keywords)
    assert not isinstance(info, Elsewhere)
    _forget_the_answer(node, info["image"])

    assert node.take_back(keywords) is None

    assert mounts_below(node.node.work.containers_dir) == []
    assert files(node.node.work.containers_dir) == []
    assert [list(node.node.store.images.refs(digest)) for digest in node.node.store.images.digests()] == [[]]
    assert keys(redis_client) == set()


def test_what_somebody_holds_is_not_undone(node: Provisioner, image: str, redis_client: redis.Redis) -> None:
    """A twin of the request, or the process that was told to die: it may be tried again."""
    keywords = {"container_id": "c1", "image": image}
    info = node.provision(keywords)
    assert not isinstance(info, Elsewhere)
    _forget_the_answer(node, info["image"])
    owner = RefOwner(node="n1", container_id="c1", name="rootfs")

    with node.node.store.images.pin(Digest.parse(info["digest"]), owner), pytest.raises(ProvisionUnderWay):
        node.take_back(keywords)

    assert tree_text(info["rootfs"]) == SMALL_TREE
    node.take_back(keywords)
    assert keys(redis_client) == set()


def test_a_pin_without_a_rootfs_goes(node: Provisioner, image: str, redis_client: redis.Redis) -> None:
    """Killed while it pulled: the record has nothing but the pin."""
    keywords = {"container_id": "c1", "image": image}
    info = node.provision(keywords)
    assert not isinstance(info, Elsewhere)
    node.node.backends["overlay"].destroy(node.node.work.rootfs_paths(("c1",), name="rootfs"))
    path = node.node.work.record_path(("c1",))
    record = read_record(path)
    write_record(
        path,
        record.without("rootfs").with_pending("rootfs", Digest.parse(info["digest"]), generation=record.generation),
    )
    _forget_the_answer(node, info["image"])

    node.take_back(keywords)

    assert files(node.node.work.containers_dir) == []
    assert [list(node.node.store.images.refs(digest)) for digest in node.node.store.images.digests()] == [[]]
    assert keys(redis_client) == set()


def test_an_answered_rootfs_stays(node: Provisioner, image: str) -> None:
    """It is the caller's to destroy."""
    keywords = {"container_id": "c1", "image": image}
    info = node.provision(keywords)
    assert not isinstance(info, Elsewhere)

    node.take_back(keywords)

    assert node.provision(keywords) == info
    assert tree_text(info["rootfs"]) == SMALL_TREE


def test_what_was_never_begun_is_nothing_to_undo(node: Provisioner, image: str, redis_client: redis.Redis) -> None:
    """Revoked while it stood in the queue."""
    assert node.take_back({"container_id": "pod.c1", "image": image}) is None

    assert files(node.node.work.containers_dir) == []
    assert keys(redis_client) == set()


def test_what_began_on_another_node_is_undone_there(node: Provisioner, image: str) -> None:
    """The retry of a task stands in the common queue, where any node may find that it is revoked."""
    container_id = ContainerId.parse("c1")
    node.node.containers.begin_provision(container_id, name="rootfs", image=image, node="n2", request=image)

    assert node.take_back({"container_id": "c1", "image": image}) == Elsewhere(node="n2")
    node.node.containers.begin_destroy(container_id, node="n2")
    node.node.containers.finish_destroy(container_id)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["overlay", "copy"])
def test_a_provision_terminated_anywhere_is_undone(
    node: Provisioner, image: str, redis_client: redis.Redis, backend: str
) -> None:
    """Killed at any line of ours: nothing is left but whole layers, which prune takes."""
    keywords = {"container_id": "pod.c1", "image": image, "backend": backend}
    lines = count_lines(lambda: make_provisioner(node.node.settings).provision(keywords))
    node.destroy({"container_id": "pod"})
    node.prune({})
    kills = 0

    for at_line in range(1, lines, lines // 24):
        kills += run_killed(lambda: make_provisioner(node.node.settings).provision(keywords), at_line=at_line)
        view = node.node.containers.get(ContainerId.parse("pod.c1"))
        node.take_back(keywords)

        if view is not None and "rootfs" in view.images:
            assert node.destroy({"container_id": "pod.c1"}) is True
        assert mounts_below(node.node.work.containers_dir) == []
        assert files(node.node.work.containers_dir) == []
        assert keys(redis_client) == set()
        assert [list(node.node.store.images.refs(digest)) for digest in node.node.store.images.digests()] in ([], [[]])
        assert files(node.node.store.paths.staging_dir) == []
        assert files(node.node.store.paths.partial_dir) == []
        node.prune({})
        assert files(node.node.store.paths.images_dir) == []

    assert kills > 15
