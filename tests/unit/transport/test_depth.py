# SPDX-License-Identifier: Apache-2.0
"""Messages are counted wherever they are, as stock Celery and the transport put them there."""

from collections.abc import Iterator

import pytest
import redis

from tests.support.schedulers import Scheduler
from worker.errors import StateUnavailable
from worker.settings import Settings
from worker.transport.depth import QueueDepth, QueueDepths
from worker.transport.scripts import QueueScripts, Settled

pytestmark = pytest.mark.redis


@pytest.fixture
def scheduler(redis_url: str) -> Iterator[Scheduler]:
    """Publishes as any scheduler does."""
    made = Scheduler(redis_url)
    yield made
    made.close()


def test_every_message_nobody_works_on_is_counted(
    redis_client: redis.Redis, redis_url: str, scheduler: Scheduler
) -> None:
    """In the common queue, in this node's and no other's, delayed, laid aside."""
    settings = Settings(redis_url=redis_url, node="n1")
    for queue in ("provision", "provision", "provision", "node.n1", "node.n2"):
        scheduler.send("destroy", queue=queue, container_id="c")
    scripts = QueueScripts(redis_client, settings.queue_key)
    assert scripts.beat("consumer", lease_ms=300_000, limit=3, sources=["provision"]) is not None
    first, second = scripts.take("consumer", count=2, sources=["provision"]) or ()
    assert scripts.bury(first, reason="nobody can run it") is Settled.DONE
    assert scripts.delay(second, due_ms=4_000_000_000_000) is Settled.DONE

    depth = QueueDepths(redis_client, settings).read()

    assert depth == QueueDepth(waiting=1, waiting_here=1, delayed=1, dead=1)


def test_an_empty_server_has_none(redis_client: redis.Redis, redis_url: str) -> None:
    """Keys that are not there count as nothing."""
    depth = QueueDepths(redis_client, Settings(redis_url=redis_url)).read()

    assert depth == QueueDepth(waiting=0, waiting_here=0, delayed=0, dead=0)


def test_without_redis_that_is_said(redis_url: str) -> None:
    """Not with redis-py's error, which nobody above knows."""
    nowhere = redis.Redis.from_url("redis://127.0.0.1:1/0")

    with pytest.raises(StateUnavailable):
        QueueDepths(nowhere, Settings(redis_url=redis_url)).read()
