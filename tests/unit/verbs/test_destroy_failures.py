# SPDX-License-Identifier: Apache-2.0
"""A destroy that fails, and what comes after: the rest is gone, the cause is named, and the next one goes on."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from tests.support.disk import immutable
from tests.support.images import build_image, layer
from tests.support.layouts import write_layout
from tests.support.mounts import mounts_below
from tests.support.provisioners import SMALL_TREE, files, keys, tree_text
from tests.support.tar import File
from worker.container_id import ContainerId
from worker.containers import ContainerState
from worker.errors import ContainerDestroying, TeardownFailed
from worker.provisioner import Elsewhere, Provisioner

pytestmark = [pytest.mark.root, pytest.mark.redis]


def _provision(node: Provisioner, container_id: str, image: str) -> str:
    answer = node.provision({"container_id": container_id, "image": image})
    assert not isinstance(answer, Elsewhere)
    return str(answer["rootfs"])


def _assert_nothing_left(node: Provisioner, client: redis.Redis) -> None:
    assert mounts_below(node.node.work.work_dir) == []
    assert files(node.node.work.containers_dir) == []
    assert keys(client) == set()


def test_a_child_that_fails_keeps_its_parent_and_nobody_else(
    node: Provisioner, image: str, redis_client: redis.Redis
) -> None:
    """Its siblings go, the error names it alone, and a retry finishes: the ancestor hung for ever."""
    for container_id in ("pod", "pod.a", "pod.b", "pod.b.deep", "pod.c", "other"):
        _provision(node, container_id, image)

    with immutable(node.node.work.nested_dir(("pod", "b"))):
        with pytest.raises(TeardownFailed, match=r"pod\.b\.deep: ") as failure:
            node.destroy({"container_id": "pod"})

        assert not node.node.work.container_dir(("pod", "a")).exists()
        assert not node.node.work.container_dir(("pod", "c")).exists()
        assert "pod.a:" not in str(failure.value)
        with pytest.raises(ContainerDestroying):
            _provision(node, "pod.d", image)
        with pytest.raises(TeardownFailed):
            node.destroy({"container_id": "pod"})

    assert node.destroy({"container_id": "pod"}) is True
    assert node.destroy({"container_id": "pod"}) is False
    assert tree_text(_provision(node, "other", image)) == SMALL_TREE
    assert node.destroy({"container_id": "other"}) is True
    _assert_nothing_left(node, redis_client)


def test_a_failed_destroy_is_finished_by_the_next_recover(
    node: Provisioner, image: str, redis_client: redis.Redis
) -> None:
    """The mark stays: what was to go does not come back."""
    _provision(node, "pod", image)
    _provision(node, "pod.a", image)
    with immutable(node.node.work.nested_dir(("pod",))):
        with pytest.raises(TeardownFailed):
            node.destroy({"container_id": "pod"})
        states = {view.state for view in node.node.containers.list()}
        node.recover({})

    node.recover({})

    assert states == {ContainerState.DESTROYING}
    _assert_nothing_left(node, redis_client)


def test_destroys_that_fail_together_all_say_so_and_can_all_be_repeated(
    node: Provisioner, image: str, redis_client: redis.Redis
) -> None:
    """The second joins the first; neither waits for ever, and no lock stays taken: prune goes on."""
    _provision(node, "pod", image)
    _provision(node, "pod.a", image)

    def destroy_all_at_once() -> list[object]:
        answers: list[object] = []

        def destroy() -> None:
            try:
                answers.append(node.destroy({"container_id": "pod"}))
            except TeardownFailed as error:
                answers.append(type(error))

        threads = [threading.Thread(target=destroy) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return answers

    with immutable(node.node.work.nested_dir(("pod",))):
        failed = destroy_all_at_once()
        node.prune({})

    assert failed == [TeardownFailed] * 4
    assert True in destroy_all_at_once()
    _assert_nothing_left(node, redis_client)


def test_families_are_destroyed_while_the_store_is_pruned(
    node: Provisioner, image: str, redis_client: redis.Redis
) -> None:
    """A child's destroy does not wait behind a prune that waits for its parent's: the ancestor stood still for ever."""
    for number in range(6):
        for container_id in (f"pod{number}", f"pod{number}.a", f"pod{number}.a.b"):
            _provision(node, container_id, image)
    is_over = threading.Event()

    def prune() -> None:
        while not is_over.is_set():
            node.prune({})

    pruning = threading.Thread(target=prune)
    pruning.start()
    with ThreadPoolExecutor(6) as pool:
        destroyed = list(pool.map(lambda number: node.destroy({"container_id": f"pod{number}"}), range(6)))
    is_over.set()
    pruning.join(60)

    assert destroyed == [True] * 6
    assert not pruning.is_alive()
    _assert_nothing_left(node, redis_client)


def test_a_destroy_amid_many_provisions_of_one_container_leaves_nothing(
    node: Provisioner, image: str, redis_client: redis.Redis
) -> None:
    """It wins over each of them, mounted or not: the ancestor waited for the last one only."""

    def provision(name: str) -> None:
        with suppress(ContainerDestroying):
            node.provision({"container_id": "c1", "image": image, "name": name, "backend": "copy"})

    threads = [threading.Thread(target=provision, args=(f"volume{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    while not any(view.images for view in node.node.containers.list()):
        time.sleep(0.001)
    node.destroy({"container_id": "c1"})
    for thread in threads:
        thread.join(60)

    node.destroy({"container_id": "c1"})
    _assert_nothing_left(node, redis_client)


def test_a_provision_that_a_destroy_overtakes_while_it_copies_is_not_tried_again(
    node: Provisioner, tmp_path: Path, redis_client: redis.Redis
) -> None:
    """Its error is permanent: a retry would come after the destroy, and bring back what is to be no more."""
    entries = [File(f"file{number}", os.urandom(4096)) for number in range(3000)]
    write_layout(tmp_path / "many", {"latest": build_image([layer(*entries, compression="none")])})
    keywords = {"container_id": "c1", "image": f"oci:{tmp_path / 'many'}:latest", "backend": "copy"}
    node.pull({"image": keywords["image"]})
    errors: list[BaseException] = []

    def provision() -> None:
        try:
            node.provision(keywords)
        except ContainerDestroying as error:
            errors.append(error)

    thread = threading.Thread(target=provision)
    thread.start()
    paths = node.node.work.rootfs_paths(("c1",), name="rootfs")
    while not list(paths.rootfs_home.glob("*.partial")):
        assert not paths.rootfs_dir.exists(), "the copy was over before it could be overtaken"
        time.sleep(0.001)

    assert node.destroy({"container_id": "c1"}) is True
    thread.join(60)

    assert [type(error) for error in errors] == [ContainerDestroying]
    _assert_nothing_left(node, redis_client)


def test_a_failed_destroy_is_shown_until_it_is_done(node: Provisioner, image: str) -> None:
    """How often it was tried, why it failed, and when it is tried again; not one that came after."""
    _provision(node, "c1", image)
    keywords, container_id = {"container_id": "c1"}, ContainerId.parse("c1")
    node.node.containers.begin_destroy(container_id, node="n1")

    node.note_destroy_failure(keywords, error="busy", retry_in_seconds=60)

    failed = node.node.containers.get(container_id)
    assert failed is not None
    assert (failed.attempts, failed.last_error, failed.retry_at_ms is not None) == (1, "busy", True)
    assert node.destroy(keywords) is True
    _provision(node, "c1", image)
    node.note_destroy_failure(keywords, error="busy", retry_in_seconds=60)
    assert node.node.containers.get(container_id).attempts == 0  # type: ignore[union-attr]
