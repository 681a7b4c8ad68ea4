# SPDX-License-Identifier: Apache-2.0
"""A queue that loses nothing: stock Celery publishes, real workers are stopped and killed at the worst moment."""

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from celery.result import AsyncResult

from tests.support.disk import immutable
from tests.support.mounts import mounts_below
from tests.support.ports import free_port, wait_until
from tests.support.provisioners import small_layout
from tests.support.redis_server import RedisServer
from tests.support.schedulers import WAIT_SECONDS, Scheduler
from tests.support.workers import Node
from worker.container_id import ContainerId
from worker.containers import Containers
from worker.settings import Settings

pytestmark = [pytest.mark.root, pytest.mark.redis]

_KEYS = Settings().queue_key
Act = Callable[[redis.Redis], object]


def test_a_task_sent_to_a_frozen_idle_worker_outlives_it(
    node: Node, other_node: Node, scheduler: Scheduler, own_redis_server: RedisServer
) -> None:
    """Redis delivers to the worker, which is killed before it can know: stock Celery loses the task every time."""
    other_node.stop()
    with own_redis_server.client() as client:
        result = _send_to_frozen(node, scheduler, client)
    node.kill()

    other_node.start()

    assert result.get(timeout=60) is False


def _send_to_frozen(node: Node, scheduler: Scheduler, client: redis.Redis) -> AsyncResult:
    """Stop the worker while it waits in Redis, and send it a task that Redis delivers to it.

    A wait ends by itself and is begun anew; between the two the task stays in its queue, and this is tried again.
    """
    while True:
        node.pause()
        result = scheduler.send("destroy", container_id="c1")
        with suppress(TimeoutError):
            wait_until(lambda: client.llen("provision") == 0, "delivery", seconds=0.2)
            return result
        node.resume()
        assert result.get(timeout=60) is False


def test_a_retry_waits_in_redis_and_outlives_its_worker(
    node: Node, scheduler: Scheduler, own_redis_server: RedisServer
) -> None:
    """Nothing is held for it in a worker, and whoever is there when it is due goes on."""
    node.stop()
    node.env["PROVISIONER_RETRY_BASE_SECONDS"] = "2"
    node.start()
    scheduler.send("pull", image=f"127.0.0.1:{free_port()}/nothing:1")
    with own_redis_server.client() as client:
        wait_until(lambda: client.zcard(f"{_KEYS}:delayed") == 1, "the first failure", seconds=30)
        assert scheduler.call("destroy", container_id="c1") is False
        ((before, due_ms),) = client.zrange(f"{_KEYS}:delayed", 0, -1, withscores=True)
        node.kill()
        node.start()

        wait_until(lambda: client.zcount(f"{_KEYS}:delayed", due_ms + 1, "+inf") == 1, "another attempt", seconds=60)

        assert client.zscore(f"{_KEYS}:delayed", before) is None


def test_a_destroy_that_is_tried_again_says_so_in_its_container(
    node: Node, scheduler: Scheduler, own_redis_server: RedisServer, tmp_path: Path
) -> None:
    """As a provision does: attempts, the last error, the time of the next one; until it is done."""
    scheduler.call("provision", container_id="c1", image=small_layout(tmp_path / "layout"))
    with own_redis_server.client() as client, immutable(node.work_dir / "containers"):
        result = scheduler.send("destroy", container_id="c1")
        containers = Containers(client, Settings().key_prefix)

        def is_shown() -> bool:
            view = containers.get(ContainerId.parse("c1"))
            return view is not None and view.attempts > 0 and "c1: " in view.last_error and bool(view.retry_at_ms)

        wait_until(is_shown, "a failed attempt", seconds=30)

    assert result.get(timeout=WAIT_SECONDS) is True


@pytest.mark.parametrize("end", [Node.stop, Node.quit])
def test_a_worker_that_is_told_to_end_gives_back_what_it_does_not_finish(
    node: Node, scheduler: Scheduler, own_redis_server: RedisServer, end: Callable[[Node], None]
) -> None:
    """SIGQUIT at once, SIGTERM when its time is over; and nothing is held against the task."""
    node.stop()
    node.env["PROVISIONER_SHUTDOWN_SECONDS"] = "1"
    node.start()
    with socket.create_server(("127.0.0.1", 0)) as silent, own_redis_server.client() as client:
        scheduler.send("pull", image=f"127.0.0.1:{silent.getsockname()[1]}/anything:1")
        silent.settimeout(30)
        connection, _ = silent.accept()
        with connection:
            end(node)

            assert connection.recv(65536)
            assert client.llen("provision") == 1
            assert client.zcard(f"{_KEYS}:consumers") == 0
            assert list(client.scan_iter(f"{_KEYS}:failed:*")) == []


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_pool_that_is_told_to_end_keeps_its_task_while_it_runs(
    node: Node, other_node: Node, scheduler: Scheduler, pool: str
) -> None:
    """Only prefork goes on with the loop's work meanwhile; the other worker does not take it for dead."""
    node.stop()
    other_node.stop()
    node.start("--pool", pool)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        scheduler.send("pull", image=f"127.0.0.1:{silent.getsockname()[1]}/anything:1")
        silent.settimeout(30)
        connection, _ = silent.accept()
        with connection:
            other_node.start()
            node.tell(signal.SIGTERM)
            silent.settimeout(8)
            with pytest.raises(TimeoutError):
                silent.accept()
            assert not node.has_ended


def test_whoever_waits_for_a_task_that_kills_its_workers_is_told(
    node: Node, scheduler: Scheduler, own_redis_server: RedisServer
) -> None:
    """The task is laid aside in the end, and its failure says so."""
    with socket.create_server(("127.0.0.1", 0)) as silent, own_redis_server.client() as client:
        silent.settimeout(60)
        node.stop()
        node.env["PROVISIONER_MAX_DELIVERIES"] = "2"
        node.start()
        result = scheduler.send("pull", image=f"127.0.0.1:{silent.getsockname()[1]}/anything:1")
        for _ in range(2):
            connection, _ = silent.accept()
            with connection:
                _kill_pool(node)

        with pytest.raises(Exception, match="worker after worker died over it") as caught:
            result.get(timeout=60)

        assert type(caught.value).__name__ == "TaskLaidAside"
        assert client.zcard(f"{_KEYS}:dead") == 1


def test_nothing_is_lost_while_redis_is_full(node: Node, scheduler: Scheduler, own_redis_server: RedisServer) -> None:
    """States, answers and retries wait until there is room, and nothing is begun or held against anybody meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as silent, own_redis_server.client() as client:
        node.stop()
        node.env["PROVISIONER_MAX_RETRIES"] = "1"
        node.start()
        pull = scheduler.send("pull", image=f"127.0.0.1:{silent.getsockname()[1]}/anything:1")
        silent.settimeout(30)
        connection, _ = silent.accept()
        results = [scheduler.send("destroy", container_id=f"c{number}") for number in range(200)]
        results[1].get(timeout=WAIT_SECONDS)

        client.config_set("maxmemory", 1)
        connection.close()
        silent.close()
        time.sleep(4)
        waiting = client.llen("provision")
        time.sleep(2)

        assert client.llen("provision") == waiting > 0
        assert (client.zcard(f"{_KEYS}:dead"), list(client.scan_iter(f"{_KEYS}:failed:*"))) == (0, [])
        client.config_set("maxmemory", 0)
        assert [result.get(timeout=WAIT_SECONDS) for result in results] == [False] * len(results)
        with pytest.raises(Exception, match="is unavailable"):
            pull.get(timeout=WAIT_SECONDS)
        assert "waits to be published" in node.log


@pytest.mark.parametrize(
    ("refuse", "relent"),
    [
        (lambda client: client.config_set("maxmemory", 1), lambda client: client.config_set("maxmemory", 0)),
        (lambda client: client.replicaof("127.0.0.1", "1"), lambda client: client.replicaof("NO", "ONE")),
    ],
    ids=["full", "replica"],
)
def test_a_worker_that_connects_to_a_redis_that_refuses_waits_for_it(
    node: Node, scheduler: Scheduler, own_redis_server: RedisServer, refuse: Act, relent: Act
) -> None:
    """Celery ends it: `Unrecoverable error`."""
    assert scheduler.call("destroy", container_id="c1") is False
    with own_redis_server.client() as client:
        refuse(client)
        client.client_kill_filter(_type="normal", skipme=True)
        time.sleep(6)
        assert not node.has_ended
        relent(client)

    assert scheduler.call("destroy", container_id="c1") is False
    assert 0 < node.log.count("Redis refuses") < 20


def _kill_pool(node: Node) -> None:
    """Kill every process that may run a task."""
    for each in Path(f"/proc/{node.pid}/task").glob("*/children"):
        for pid in each.read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def test_a_provision_that_is_delivered_again_brings_no_destroyed_container_back(
    node: Node, scheduler: Scheduler, tmp_path: Path
) -> None:
    """Its worker stood still before it acknowledged, say: the answer stays what it was, and nothing is mounted."""
    keywords = {"container_id": "c1", "image": small_layout(tmp_path / "layout")}

    def send() -> AsyncResult:
        return scheduler.app.send_task("provisioner.provision", kwargs=keywords, queue="provision", task_id="once")

    info = send().get(timeout=WAIT_SECONDS)
    assert scheduler.call("destroy", container_id="c1") is True
    again = send()
    wait_until(lambda: node.log.count("provision[once] succeeded") == 2, "the second run", seconds=WAIT_SECONDS)

    assert again.get(timeout=WAIT_SECONDS) == info
    assert mounts_below(node.work_dir / "containers") == []
    assert scheduler.call("destroy", container_id="c1") is False
