# SPDX-License-Identifier: Apache-2.0
"""What went wrong, or might have: Redis emptied or set back, disks full, holders stopped, trash that stays."""

import dataclasses
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from typing_extensions import override

from tests.integration.chaos.pausing import PausedProcess, paused_at
from tests.support.mounts import mounts_below
from tests.support.provisioners import SMALL_TREE, files, keys, provisioner, settle, small_layout, tree_text
from tests.support.redis_server import RedisServer
from worker.container_id import ContainerId
from worker.containers import Containers
from worker.errors import LockTimeout, StateLost, StorageExhausted, TeardownFailed, ViewIncomplete
from worker.linux.flock import try_lock
from worker.provisioner import Elsewhere, Provisioner
from worker.requests import ProvisionRequest
from worker.verbs.undo import abandon

pytestmark = [pytest.mark.root, pytest.mark.redis]


@pytest.fixture
def image(tmp_path: Path) -> str:
    """The reference of a small image."""
    return small_layout(tmp_path / "layout")


@pytest.fixture
def node(tmp_path: Path, redis_url: str) -> Iterator[Provisioner]:
    """One node."""
    with provisioner(tmp_path / "n1", redis_url) as made:
        yield made


def _provision(node: Provisioner, container_id: str, image: str) -> dict[str, Any]:
    answer = node.provision({"container_id": container_id, "image": image})
    assert not isinstance(answer, Elsewhere)
    return answer


class _Interrupted(Containers):
    """Lets something happen once one container is destroyed."""

    happens: Callable[[], object] = staticmethod(lambda: None)

    @override
    def finish_destroy(self, container_id: ContainerId) -> bool:
        is_gone = super().finish_destroy(container_id)
        happens, self.happens = self.happens, lambda: None
        happens()
        return is_gone


def _interrupted(node: Provisioner, client: redis.Redis, happens: Callable[[], object]) -> Provisioner:
    containers = _Interrupted(client, node.node.settings.key_prefix)
    containers.happens = happens
    return Provisioner(dataclasses.replace(node.node, containers=containers))


def test_a_child_that_came_after_the_mark_was_lost_is_not_moved_away(
    node: Provisioner, image: str, redis_client: redis.Redis
) -> None:
    """The parent stays until it is destroyed again, with the child."""
    child: list[dict[str, Any]] = []

    def lose_the_mark() -> None:
        redis_client.flushall()
        child.append(_provision(node, "pod.late", image))

    _provision(node, "pod", image)
    _provision(node, "pod.early", image)
    with pytest.raises(TeardownFailed, match="lost"):
        _interrupted(node, redis_client, lose_the_mark).destroy({"container_id": "pod"})

    assert tree_text(child[0]["rootfs"]) == SMALL_TREE
    assert node.destroy({"container_id": "pod"}) is True
    assert mounts_below(node.node.work.work_dir) == []
    assert files(node.node.work.containers_dir) == files(node.node.work.trash_dir) == []


def test_redis_from_an_old_copy_does_not_answer_for_a_rootfs_that_is_gone(
    tmp_path: Path, image: str, own_redis_server: RedisServer
) -> None:
    """A failover loses the last destroy; the next provision notices, and the one after it provisions."""
    with provisioner(tmp_path / "n1", own_redis_server.url, heartbeat_seconds=0.02) as node:
        _provision(node, "c1", image)
        with own_redis_server.losing(tmp_path / "copy"):
            settle(node)
            node.destroy({"container_id": "c1"})

        with pytest.raises(ViewIncomplete):
            _provision(node, "c1", image)
        settle(node)
        with pytest.raises(StateLost, match="not there"):
            _provision(node, "c1", image)

        assert files(node.node.work.containers_dir) == []
        assert tree_text(_provision(node, "c1", image)["rootfs"]) == SMALL_TREE


def test_what_was_unmounted_behind_our_back_comes_back(node: Provisioner, image: str) -> None:
    """The attempt that finds it mounts it again."""
    info = _provision(node, "c1", image)
    subprocess.run(["umount", "--lazy", info["rootfs"]], check=True)

    assert _provision(node, "c1", image) == info
    assert tree_text(info["rootfs"]) == SMALL_TREE


def test_a_file_that_cannot_be_deleted_spoils_nobody_elses_destroy(node: Provisioner, image: str) -> None:
    """The container made it immutable: it is destroyed all the same, and its remains wait in the trash."""
    info = _provision(node, "c1", image)
    _provision(node, "c2", image)
    eternal = Path(info["ephemeral_volumes"][0]) / "eternal"
    eternal.write_text("mine")
    if subprocess.run(["chattr", "+i", eternal], check=False, capture_output=True).returncode != 0:
        pytest.skip("the filesystem has no immutable files")
    try:
        assert node.destroy({"container_id": "c1"}) is True
        assert node.destroy({"container_id": "c2"}) is True
        assert node.recover({})["kept"] == []  # type: ignore[index]
    finally:
        for path in node.node.work.trash_dir.rglob("eternal"):
            subprocess.run(["chattr", "-i", path], check=True)

    node.destroy({"container_id": "c3"})
    _provision(node, "c3", image)
    node.destroy({"container_id": "c3"})
    assert files(node.node.work.trash_dir) == []


def test_an_image_that_is_gone_does_not_keep_the_others_from_recovering(
    node: Provisioner, image: str, tmp_path: Path, redis_client: redis.Redis
) -> None:
    """An operator deleted it: its container is reported, the others are shown again."""
    lost = _provision(node, "a-lost", image)
    kept = _provision(node, "kept", small_layout(tmp_path / "other", "other"))
    shutil.rmtree(node.node.store.paths.image_dir(lost["digest"]))
    redis_client.flushall()

    recovered = node.recover({}, is_start=True)

    assert recovered["kept"] == ["kept"]  # type: ignore[index]
    assert tree_text(kept["rootfs"])["new"] == "other"


def test_a_directory_without_a_lock_was_left_by_a_dead_worker(node: Provisioner) -> None:
    """It was killed between making the one and the other."""
    node.node.work.rootfses_dir(("pod", "c1")).mkdir(parents=True)

    assert node.recover({}, is_start=True)["cleaned"] == 1  # type: ignore[index]

    assert files(node.node.work.containers_dir) == []


def _stopped_in_its_pull(node: Provisioner, image: str) -> PausedProcess:
    """Return a provision of c1 that has noted its pin and holds no flock of the container."""
    for step in range(10, 200, 2):
        paused = paused_at(step, lambda: _provision(node, "c1", image))
        assert paused is not None, "it went through without a pull"
        if node.node.work.record_path(("c1",)).exists():
            lock = try_lock(node.node.work.container_lock_path(("c1",)), exclusive=True)
            if lock is not None:
                lock.release()
                return paused
        paused.kill()
    raise AssertionError("it never pulls")


def test_an_old_provision_that_ends_late_leaves_its_successor_alone(node: Provisioner, image: str) -> None:
    """Destroyed and provisioned again while it pulled: what it undoes is not the new container's."""
    request = ProvisionRequest.parse({"container_id": "c1", "image": image})
    successor = _stopped_in_its_pull(node, image)

    abandon(node.node, request, generation="of the one before")

    assert successor.resume() == 0
    assert tree_text(_provision(node, "c1", image)["rootfs"]) == SMALL_TREE


def test_giving_up_undoes_ones_own(node: Provisioner, image: str, redis_client: redis.Redis) -> None:
    """The same with the right generation, from a worker that died in its pull, leaves nothing."""
    _stopped_in_its_pull(node, image).kill()

    node.give_up({"container_id": "c1", "image": image})

    assert files(node.node.work.containers_dir) == []
    assert keys(redis_client) == set()
    node.prune({})
    assert files(node.node.store.paths.images_dir) == []


def test_a_stopped_holder_of_the_fence_does_not_stop_everybody_through_prune(
    node: Provisioner, image: str, redis_client: redis.Redis
) -> None:
    """Its lease lapsed, prune has the lock but not the fence: it gives up at once, and others go on."""
    held, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with node.node.store.fence.shared(token=1 << 62):
            held.set()
            may_end.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        with pytest.raises(LockTimeout, match=r"/lock not granted for exclusive use within 1 s"):
            node.prune({})
    finally:
        may_end.set()
        holder.join()


@contextmanager
def _small_disk(directory: Path, size: str) -> Iterator[Path]:
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def _fill(directory: Path) -> Path:
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


@pytest.mark.parametrize("is_warm", [True, False])
def test_on_a_full_disk_provision_may_be_tried_again_and_destroy_and_prune_work(
    tmp_path: Path, image: str, redis_url: str, *, is_warm: bool
) -> None:
    """What is full is said, nothing is half made, and room comes back by destroying and pruning."""
    other = small_layout(tmp_path / "other", "other")
    with _small_disk(tmp_path / "disk", "8m") as disk, provisioner(disk / "n1", redis_url) as node:
        info = _provision(node, "c1", image)
        if is_warm:
            node.pull({"image": other})
        ballast = _fill(disk)

        with pytest.raises(StorageExhausted):
            _provision(node, "c2", other)

        assert tree_text(info["rootfs"]) == SMALL_TREE
        assert node.destroy({"container_id": "c1"}) is True
        node.prune({})
        ballast.unlink()
        assert tree_text(_provision(node, "c2", other)["rootfs"])["new"] == "other"
        node.destroy({"container_id": "c2"})
        node.prune({})
        assert files(node.node.store.paths.images_dir) == []


@pytest.mark.parametrize("is_warm", [True, False])
def test_a_prune_at_any_step_of_a_pull_does_not_make_it_fail(node: Provisioner, image: str, *, is_warm: bool) -> None:
    """It might as well have come after the answer."""
    stopped = 0
    for step in range(1, 400, 2):
        if is_warm:
            node.pull({"image": image})
        paused = paused_at(step, lambda: node.pull({"image": image}))
        if paused is None:
            break
        stopped += 1
        pruning = threading.Thread(target=node.prune, args=({},))
        pruning.start()
        pruning.join(0.1)
        assert paused.resume() == 0, f"stopped at step {step}"
        pruning.join()
        node.prune({})

    assert stopped > 2
