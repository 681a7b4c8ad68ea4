# SPDX-License-Identifier: Apache-2.0
"""Results in a real Redis that refuses them for a while."""

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import redis
from celery import Celery, states
from celery.app.task import Context
from celery.backends import redis as stock

from tests.support.redis_server import RedisServer
from worker import results
from worker.celery import make_app
from worker.settings import Settings
from worker.transport import channel

pytestmark = [pytest.mark.redis, pytest.mark.filterwarnings("ignore:Call to deprecated setex")]


@pytest.fixture
def app(own_redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """An app as a worker has it, in a process that gives no sign of life to servers of other tests."""
    monkeypatch.setattr(channel, "_ledgers", {})
    made = Celery("results", set_as_current=False, backend=own_redis_server.url)
    made.conf.update(result_backend_always_retry=True, result_backend_max_sleep_between_retries_ms=100)
    results.select(made)
    yield made
    made.close()


@contextmanager
def full(client: redis.Redis) -> Iterator[None]:
    """Leave no memory."""
    client.config_set("maxmemory", 1)
    yield
    client.config_set("maxmemory", 0)


@contextmanager
def without_disk(client: redis.Redis) -> Iterator[None]:
    """Fail a snapshot, upon which Redis takes no writes: its directory is not there."""
    client.config_set("save", "3600 1000000")
    shutil.rmtree(client.config_get("dir")["dir"])
    client.bgsave()
    while client.info("persistence")["rdb_last_bgsave_status"] == "ok":
        time.sleep(0.01)
    yield
    client.config_set("stop-writes-on-bgsave-error", "no")


@contextmanager
def replica(client: redis.Redis) -> Iterator[None]:
    """Be somebody's copy."""
    client.replicaof("127.0.0.1", "1")
    yield
    client.replicaof("NO", "ONE")


@pytest.mark.parametrize("refusing", [full, without_disk, replica])
def test_an_answer_waits_for_a_redis_that_refuses_it(
    app: Celery, own_redis_server: RedisServer, refusing: Callable[[redis.Redis], object]
) -> None:
    """Celery's own backend raises, and its worker takes the task for ended."""
    with own_redis_server.client() as client, ThreadPoolExecutor() as pool:
        with refusing(client):  # type: ignore[attr-defined]
            with pytest.raises(redis.ResponseError):
                client.set("a", "b")
            stored = pool.submit(app.backend.store_result, "t", 7, states.SUCCESS)
            time.sleep(0.5)
            assert not stored.done()

        stored.result(timeout=10)

    assert app.AsyncResult("t").result == 7


def test_a_part_of_a_chord_waits_and_counts_once(app: Celery, own_redis_server: RedisServer) -> None:
    """The chord would fail over one that is done."""
    request = Context(id="t", group="g", group_index=0, chord=None)
    with own_redis_server.client() as client, ThreadPoolExecutor() as pool:
        with full(client):
            returned = pool.submit(app.backend.on_chord_part_return, request, states.SUCCESS, 7)
            time.sleep(0.5)
            assert not returned.done()

        returned.result(timeout=10)

        assert client.zcard("celery-taskset-meta-g.j") == 1


def test_everybody_elses_backend_reads_what_is_stored(app: Celery, own_redis_server: RedisServer) -> None:
    """Schedulers have Celery's own."""
    app.backend.store_result("t", {"a": 1}, states.SUCCESS)

    scheduler = Celery("scheduler", set_as_current=False, backend=own_redis_server.url)

    assert type(scheduler.backend) is stock.RedisBackend
    assert scheduler.AsyncResult("t").result == {"a": 1}
    scheduler.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h/0", results.RedisBackend),
        ("rediss://h/0?ssl_cert_reqs=required", results.RedisBackend),
        ("sentinel://h/0;sentinel://i/0", results.SentinelBackend),
    ],
)
def test_a_worker_waits_by_whatever_url_it_finds_redis(url: str, expected: type) -> None:
    """The URL stays what it was."""
    app = Celery("results", set_as_current=False, backend=url)
    results.select(app)

    assert type(app.backend) is expected
    assert app.backend.url == url


def test_a_worker_has_this_backend() -> None:
    """Without a limit to its patience."""
    app = make_app(Settings())

    assert type(app.backend) is results.RedisBackend
    assert app.backend.always_retry
    assert app.backend.max_retries == float("inf")
