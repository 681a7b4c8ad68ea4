# SPDX-License-Identifier: Apache-2.0
"""Kill a verb at every step that Python can see, and look at what comes after.

The verb runs in a forked child, in which an audit hook counts the interpreter's events (open, rename, mkdir, unlink,
flock, socket traffic is not among them) and kills the process with SIGKILL at the n-th. n runs from the first to the
last. The kernel then releases the child's flocks, Redis keeps the child's lease until it lapses.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.support.mounts import mounts_below
from tests.support.provisioners import SMALL_TREE, files, keys, make_settings, small_layout, tree_text
from worker.provisioner import Elsewhere, Provisioner
from worker.runtime import make_provisioner

pytestmark = [pytest.mark.root, pytest.mark.redis, pytest.mark.timeout(600)]

_EVENTS = (
    "open",
    "os.rename",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "fcntl.flock",
    "os.link",
    "os.symlink",
    "os.setxattr",
)
_LEASE_SECONDS = 1.0


def _kill_at(limit: int, act: Callable[[], object]) -> bool:
    """Run `act` in a child that dies at its `limit`-th event; tell whether it died before it was done."""
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            seen = 0

            def count(event: str, _: object) -> None:
                nonlocal seen
                if event in _EVENTS:
                    seen += 1
                    if seen >= limit:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(count)
            act()
            status = 0
        os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0, f"the verb failed in the child when left to run past event {limit}"
    return False


@pytest.fixture
def made(tmp_path: Path, redis_url: str, layer_format: str) -> Iterator[Callable[[], Provisioner]]:
    """Make provisioners of the same node: one per process, as workers do."""

    def make() -> Provisioner:
        settings = make_settings(tmp_path, redis_url, lease_seconds=_LEASE_SECONDS, layer_format=layer_format)
        return make_provisioner(settings)

    yield make
    make().recover({"known_container_ids": []}, is_start=True)


def _assert_clean(node: Provisioner, client: redis.Redis) -> None:
    """Destroy and prune, then nothing is left anywhere."""
    node.destroy({"container_id": "c1"})
    node.prune({})
    paths = node.node.store.paths
    assert mounts_below(node.node.work.work_dir) == []
    for directory in (node.node.work.containers_dir, node.node.work.trash_dir, paths.images_dir, paths.references_dir):
        assert files(directory) == []
    for directory in (paths.staging_dir, paths.trash_dir):
        assert files(directory) == []
    assert list(node.node.store.layers.committed()) == []
    assert keys(client) == set()


def _steps(act: Callable[[], object], *, stride: int) -> Iterator[int]:
    """Yield after every kill, at growing events, until the verb gets through."""
    limit = 1
    while _kill_at(limit, act):
        yield limit
        limit += stride


@pytest.mark.parametrize("is_recovered", [True, False])
def test_a_provision_killed_anywhere_is_taken_up_or_undone(
    made: Callable[[], Provisioner], tmp_path: Path, redis_client: redis.Redis, *, is_recovered: bool
) -> None:
    """Whether the next worker recovers first or simply runs the task again: one complete rootfs, then nothing left."""
    image = small_layout(tmp_path / "layout")
    keywords = {"container_id": "c1", "image": image}
    kills = 0

    for _ in _steps(lambda: made().provision(keywords), stride=9):
        kills += 1
        node = made()
        if is_recovered:
            node.recover({}, is_start=True)
        info = node.provision(keywords)
        assert not isinstance(info, Elsewhere)
        assert tree_text(info["rootfs"]) == SMALL_TREE
        assert len(mounts_below(node.node.work.containers_dir)) == 1
        node.recover({}, is_start=True)
        assert tree_text(info["rootfs"]) == SMALL_TREE
        _assert_clean(node, redis_client)

    assert kills > 10


def test_a_destroy_killed_anywhere_is_finished_by_the_next(
    made: Callable[[], Provisioner], tmp_path: Path, redis_client: redis.Redis
) -> None:
    """The next destroy, or the next recover, completes it."""
    image = small_layout(tmp_path / "layout")
    node = made()
    kills = 0
    node.provision({"container_id": "c1", "image": image})

    for limit in _steps(lambda: made().destroy({"container_id": "c1"}), stride=4):
        kills += 1
        after = made()
        if limit % 2:
            after.recover({}, is_start=True)
        _assert_clean(after, redis_client)
        after.provision({"container_id": "c1", "image": image})

    assert kills > 5
    _assert_clean(node, redis_client)


def test_a_prune_killed_anywhere_leaves_containers_whole(
    made: Callable[[], Provisioner], tmp_path: Path, redis_client: redis.Redis
) -> None:
    """What is in use stays, what is not goes with the next prune."""
    image, other = small_layout(tmp_path / "layout"), small_layout(tmp_path / "other", "other")
    node = made()
    info = node.provision({"container_id": "c1", "image": image})
    assert not isinstance(info, Elsewhere)
    kills = 0
    node.pull({"image": other})

    for _ in _steps(lambda: made().prune({}), stride=4):
        kills += 1
        assert tree_text(info["rootfs"]) == SMALL_TREE
        made().recover({}, is_start=True)
        node.pull({"image": other})

    assert kills > 5
    _assert_clean(node, redis_client)


def test_a_recover_killed_anywhere_can_be_run_again(
    made: Callable[[], Provisioner], tmp_path: Path, redis_client: redis.Redis
) -> None:
    """It brings the same state in the end."""
    image = small_layout(tmp_path / "layout")
    node = made()
    info = node.provision({"container_id": "c1", "image": image})
    assert not isinstance(info, Elsewhere)
    kills = 0
    redis_client.flushall()

    for _ in _steps(lambda: made().recover({}, is_start=True), stride=4):
        kills += 1
        redis_client.flushall()

    assert kills > 3
    assert tree_text(info["rootfs"]) == SMALL_TREE
    assert node.provision({"container_id": "c1", "image": image}) == info
    _assert_clean(node, redis_client)
