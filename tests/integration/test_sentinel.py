# SPDX-License-Identifier: Apache-2.0
"""The master is killed and its replica takes over: worker, scheduler, lock and command line follow by themselves."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery.result import AsyncResult
from kombu.exceptions import OperationalError

from tests.integration.conftest import NODE_SETTINGS
from tests.support.images import build_image, layer
from tests.support.ports import wait_until
from tests.support.provisioners import SMALL_TREE, make_settings, small_layout, tree_text
from tests.support.proxy import Proxy, proxy_to
from tests.support.redis_server import Kind, RedisServer
from tests.support.registry_server import Registry
from tests.support.schedulers import Scheduler
from tests.support.sentinel import MASTER, SentinelCluster, sentinel_cluster
from tests.support.tar import File
from tests.support.workers import REPOSITORY_DIR, Node, running_node
from worker.errors import LockTimeout
from worker.lock import LockMode, ReadWriteLock
from worker.paths import WorkPaths
from worker.runtime import make_redis
from worker.settings import Settings

pytestmark = [pytest.mark.root, pytest.mark.redis, pytest.mark.timeout(600)]

_SETTINGS = Settings()
_BLOB_BYTES = 16 * 2**20
_SLOW_BYTES_PER_SECOND = 2**18
_WAIT_SECONDS = 120


@pytest.fixture
def cluster(tmp_path: Path, redis_kind: Kind) -> Iterator[SentinelCluster]:
    """A master, a replica and three sentinels."""
    directory = tmp_path / "sentinel"
    directory.mkdir()
    with sentinel_cluster(directory, kind=redis_kind) as made:
        yield made


@pytest.fixture
def node(tmp_path: Path, cluster: SentinelCluster) -> Iterator[Node]:
    """A node that knows the sentinels only."""
    with running_node("n1", tmp_path / "n1", redis_url=cluster.url, **NODE_SETTINGS) as made:
        yield made


@pytest.fixture
def scheduler(cluster: SentinelCluster) -> Iterator[Scheduler]:
    """Stock Celery that knows the sentinels and the master's name."""
    made = Scheduler(cluster.url, master=MASTER)
    yield made
    made.close()


class SlowImage(NamedTuple):
    """An image that takes a minute to pull, until the proxy is told to hurry."""

    reference: str
    proxy: Proxy


@pytest.fixture
def slow_image(registry: Registry) -> Iterator[SlowImage]:
    """One image behind a slow line."""
    content = random.Random(1).randbytes(_BLOB_BYTES)
    reference = registry.push("behind-sentinel", "1", build_image([layer(File("large", content), compression="none")]))
    host, _, rest = reference.partition("/")
    with proxy_to(int(host.rpartition(":")[2])) as proxy:
        proxy.bytes_per_second = _SLOW_BYTES_PER_SECOND
        yield SlowImage(f"127.0.0.1:{proxy.port}/{rest}", proxy)


@pytest.mark.registry
def test_a_killed_master_costs_nothing_that_its_replica_has(
    tmp_path: Path, cluster: SentinelCluster, node: Node, scheduler: Scheduler, slow_image: SlowImage
) -> None:
    """Tasks that run and tasks that wait are answered, what was answered stays, containers are shown and destroyed."""
    image = small_layout(tmp_path / "layout")
    before = scheduler.send("provision", container_id="before", image=image)
    rootfs = before.get(timeout=_WAIT_SECONDS)["rootfs"]
    slow = slow_image.reference
    running = [scheduler.send("provision", container_id=f"running-{each}", image=slow) for each in range(2)]
    wait_until(lambda: any(each.state == "PROGRESS" for each in running), "a pull", seconds=_WAIT_SECONDS)
    waiting = [scheduler.send("provision", container_id=f"waiting-{each}", image=image) for each in range(4)]
    mark = _epoch_of(node)

    cluster.replicate()
    heir = cluster.fail_over()
    slow_image.proxy.bytes_per_second = 0

    answers = [each.get(timeout=_WAIT_SECONDS) for each in (*running, *waiting)]
    assert {answer["container_id"] for answer in answers} == _names(running=2, waiting=4)
    assert AsyncResult(before.id, app=scheduler.app).get(timeout=_WAIT_SECONDS)["rootfs"] == rootfs
    assert tree_text(rootfs) == SMALL_TREE
    wait_until(lambda: _epoch_of(node) == (mark[0], _run_of(heir)), "a look at the epoch", seconds=_WAIT_SECONDS)
    _wait_for(node, lambda: set(_shown(node)) == _names(running=2, waiting=4) | {"before"}, "all containers in view")
    assert set(_shown(node).values()) == {"provisioned"}
    destroyed = [_send(scheduler, "destroy", container_id=name) for name in _shown(node)]
    assert [each.get(timeout=_WAIT_SECONDS) for each in destroyed] == [True] * 7
    # An answer comes a moment before its message is acknowledged.
    _wait_for(node, lambda: _undelivered(heir) == 0, "the last acknowledgement")


def _names(**counts: int) -> set[str]:
    """Return `<kind>-<number>` of each."""
    return {f"{kind}-{each}" for kind, count in counts.items() for each in range(count)}


def _send(scheduler: Scheduler, task: str, **keywords: Any) -> AsyncResult:
    """Publish as a scheduler does that is told when it could not."""
    while True:
        try:
            return scheduler.send(task, **keywords)
        except OperationalError:
            continue


def _epoch_of(node: Node) -> tuple[str, str]:
    """Return the epoch's id and the server's run, as the node last saw them."""
    mark = WorkPaths(node.work_dir).epoch_path.read_text().splitlines()[0]
    identity, _, run = mark.partition(":")
    return identity, run


def _run_of(server: RedisServer) -> str:
    with server.client() as client:
        return str(client.info("server")["run_id"])


def _shown(node: Node) -> dict[str, str]:
    """Return the containers' states as the command line shows them."""
    command = [sys.executable, "-c", "from worker.cli import main; main()", "ps", "--json"]
    shell = subprocess.run(command, env=node._environment(), cwd=REPOSITORY_DIR, check=True, capture_output=True)
    return {each["container_id"]: each["state"] for each in json.loads(shell.stdout)["containers"]}


def _undelivered(server: RedisServer) -> int:
    """Count the messages that are in a queue, recorded, delayed or laid aside."""
    keys = _SETTINGS.queue_key
    with server.client() as client:
        lists = ["provision", "node.n1", *client.scan_iter(match=f"{keys}:taken:*", _type="list")]
        waiting = sum(client.zcard(f"{keys}:{name}") for name in ("delayed", "dead"))
        return waiting + sum(client.llen(each) for each in lists)


def _wait_for(node: Node, condition: Any, what: str) -> None:
    """Wait, and show the worker's log if it is in vain."""
    try:
        wait_until(condition, what, seconds=_WAIT_SECONDS, poll_seconds=0.2)
    except TimeoutError:
        pytest.fail(f"{what} never came:\n{node.log[-6000:]}")


def test_the_lock_is_quarantined_after_a_failover(tmp_path: Path, cluster: SentinelCluster) -> None:
    """Its copy may lack the newest holder: nobody has it alone before that one's lease is over; others share it."""
    client = make_redis(make_settings(tmp_path, cluster.url))
    lock = ReadWriteLock(client, "lock", lease_seconds=60, token_floor=lambda: 0)
    with lock.exclusive(timeout_seconds=0):
        pass
    cluster.replicate()

    cluster.fail_over()

    with lock.shared(timeout_seconds=30):
        assert lock.snapshot().quarantine_seconds > 0
    with pytest.raises(LockTimeout):
        lock.acquire(LockMode.EXCLUSIVE, timeout_seconds=0)
    client.close()
