# SPDX-License-Identifier: Apache-2.0
"""Consuming through kombu's own interface, from a queue that kombu's own transport publishes to."""

import base64
import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from kombu import Connection, Exchange, Queue
from kombu.simple import SimpleQueue

from tests.support.ports import wait_until
from tests.support.proxy import proxy_to
from tests.support.redis_server import RedisServer
from tests.unit.transport.conftest import KEY, QUEUE, Open
from worker.transport import Transport

pytestmark = pytest.mark.redis

SOON = 10.0


def numbers(queue: SimpleQueue, count: int) -> list[int]:
    """Receive so many messages."""
    return [queue.get(timeout=SOON).payload for _ in range(count)]


def beat(queue: SimpleQueue) -> None:
    """Give the sign of life that is due."""
    queue.channel.ledger.beat()


def pass_for_dead(client: redis.Redis, queue: SimpleQueue) -> None:
    """Let the consumer's last sign of life be long past."""
    client.zadd(f"{KEY}:consumers", {queue.channel.ledger.consumer: 1}, xx=True)


def letters(client: redis.Redis) -> list[dict[bytes, bytes]]:
    """What was laid aside."""
    return [client.hgetall(f"{KEY}:dead:{each.decode()}") for each in client.zrange(f"{KEY}:dead", 0, -1)]


def test_what_stock_publishes_arrives_and_is_gone_when_acknowledged(
    consume: Open, published: SimpleQueue, redis_client: redis.Redis
) -> None:
    """In order, whether it was there before the consumer or not."""
    published.put(1)
    queue = consume()
    first = queue.get(timeout=SOON)
    published.put(2)
    second = queue.get(timeout=SOON)

    assert (first.payload, second.payload) == (1, 2)
    assert redis_client.llen(QUEUE) == 0
    assert len(list(redis_client.scan_iter(f"{KEY}:taken:*"))) == 1
    first.ack()
    second.ack()
    assert list(redis_client.scan_iter(f"{KEY}:taken:*")) == []


def test_lower_priorities_are_served_last(consume: Open, published: SimpleQueue) -> None:
    """Their lists are kombu's; 0 is the highest."""
    for number, priority in ((3, 9), (2, 3), (1, 0)):
        published.put(number, priority=priority)

    assert numbers(consume(), 3) == [1, 2, 3]


def test_no_more_is_taken_than_may_be_prefetched(
    consume: Open, published: SimpleQueue, redis_client: redis.Redis
) -> None:
    """The rest stays for others."""
    queue = consume()
    queue.channel.basic_qos(0, 1, apply_global=True)
    for number in range(3):
        published.put(number)

    message = queue.get(timeout=SOON)

    with pytest.raises(SimpleQueue.Empty):
        queue.get(timeout=0.3)
    assert redis_client.llen(QUEUE) == 2
    message.ack()
    assert numbers(queue, 1) == [1]


@pytest.mark.parametrize("end", ["requeue", "reject"])
def test_what_a_worker_does_not_want_is_kept(
    consume: Open, published: SimpleQueue, redis_client: redis.Redis, end: str
) -> None:
    """Requeued it comes again, until it is laid aside; rejected it is laid aside at once."""
    published.put("bad")
    queue = consume(max_deliveries=3)

    for _ in range(3 if end == "requeue" else 1):
        getattr(queue.get(timeout=SOON), end)()

    (letter,) = letters(redis_client)
    assert base64.b64decode(json.loads(letter[b"message"])["body"]) == b"bad"
    assert redis_client.llen(QUEUE) == 0


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"body": "?", "properties": null}',
        b'{"body": "?", "headers": {}, "properties": {"body_encoding": "rot13", "delivery_info": {}}}',
        b'{"body": "a", "headers": {}, "properties": {"body_encoding": "base64", "delivery_info": {}}}',
    ],
)
def test_what_cannot_be_decoded_is_laid_aside_and_the_next_one_arrives(
    consume: Open, published: SimpleQueue, redis_client: redis.Redis, message: bytes
) -> None:
    """As it was, with the reason."""
    redis_client.lpush(QUEUE, message)
    published.put("good")

    assert consume().get(timeout=SOON).payload == "good"

    (letter,) = letters(redis_client)
    assert letter[b"message"] == message
    assert letter[b"reason"].startswith(b"cannot be decoded: ")


def test_what_is_not_due_is_not_in_any_consumers_hands(
    consume: Open, published: SimpleQueue, redis_client: redis.Redis
) -> None:
    """It waits in Redis, and is delivered when its time has come."""
    due = datetime.now(UTC) + timedelta(seconds=4)
    published.put("later", headers={"eta": due.isoformat()})
    queue = consume(timeout_seconds=2.0)

    with pytest.raises(SimpleQueue.Empty):
        queue.get(timeout=0.5)
    assert redis_client.zcard(f"{KEY}:delayed") == 1
    assert len(queue.channel.ledger) == 0

    assert queue.get(timeout=SOON).payload == "later"
    assert datetime.now(UTC) >= due


def test_a_batch_that_redis_goes_away_from_is_worked_on_or_comes_back(
    consume: Open, published: SimpleQueue, shared_redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    """It is taken, and what is not due cannot be put where it waits."""
    due = datetime.now(UTC) + timedelta(seconds=60)
    published.put("later", headers={"eta": due.isoformat()})
    published.put("now")
    with proxy_to(shared_redis_server.port) as proxy:
        queue = consume(f"redis://127.0.0.1:{proxy.port}/0", timeout_seconds=1.0)
        ledger = queue.channel.ledger
        ledger.load()
        real = ledger.delay

        def cut_off(tag: str, due_ms: int) -> bool:
            ledger.delay = real
            proxy.refuses = True
            proxy.cut()
            return real(tag, due_ms)

        ledger.delay = cut_off
        message = _persistently(lambda: queue.get(timeout=1.0))
        proxy.refuses = False
        message.ack()

        wait_until(lambda: _is_delayed(queue, redis_client), "what is not due to wait in Redis", seconds=SOON)
        assert (message.payload, len(ledger)) == ("now", 0)


def _is_delayed(queue: SimpleQueue, client: redis.Redis) -> bool:
    with suppress(SimpleQueue.Empty, redis.ConnectionError, OSError):
        queue.get(timeout=0.1)
    return client.zcard(f"{KEY}:delayed") == 1


def test_what_nobody_can_be_given_of_a_batch_comes_back(
    consume: Open, published: SimpleQueue, redis_client: redis.Redis
) -> None:
    """Whoever is given the first one fails."""
    for number in range(3):
        published.put(number)
    queue = consume(timeout_seconds=1.0)
    queue.channel.ledger.load()
    real = queue.channel.connection._deliver

    def fails(*_: object) -> None:
        queue.channel.connection._deliver = real
        raise RuntimeError("unforeseen")

    queue.channel.connection._deliver = fails
    with pytest.raises(RuntimeError, match="unforeseen"):
        queue.get(timeout=SOON)

    assert len(queue.channel.ledger) == 1
    assert numbers(queue, 2) == [1, 2]


def test_a_dead_consumers_message_comes_to_another_one_once(
    consume: Open, published: SimpleQueue, redis_client: redis.Redis
) -> None:
    """And the one that was not dead finds that it is no longer its own, and acknowledges nothing."""
    published.put("work")
    paused, other = consume(), consume()
    held = paused.get(timeout=SOON)
    pass_for_dead(redis_client, paused)

    beat(other)
    again = other.get(timeout=SOON)
    held.ack()
    beat(paused)

    assert again.payload == "work"
    with pytest.raises(SimpleQueue.Empty):
        paused.get(timeout=0.3)
    pass_for_dead(redis_client, other)
    beat(paused)
    assert paused.get(timeout=SOON).payload == "work"


def test_a_consumer_that_is_busy_itself_keeps_its_message(
    consume: Open, published: SimpleQueue, redis_client: redis.Redis
) -> None:
    """With Celery's pool solo nothing else runs in the process while a task does."""
    published.put("work")
    busy, other = consume(timeout_seconds=4.0), consume()
    held = busy.get(timeout=SOON)
    busy.channel.ledger.beat_beside()

    time.sleep(4.5)
    beat(other)

    assert redis_client.llen(QUEUE) == 0
    held.ack()
    assert list(redis_client.scan_iter(f"{KEY}:taken:*")) == []


def test_a_message_that_came_before_a_pause_is_not_handed_on_after_it(
    consume: Open, published: SimpleQueue, redis_client: redis.Redis
) -> None:
    """Its reply waited in the socket while others ended the consumer and took the message."""
    paused, other = consume(timeout_seconds=1.0), consume()
    with pytest.raises(SimpleQueue.Empty):
        paused.get(timeout=0.1)
    published.put("work")
    time.sleep(1.0)
    pass_for_dead(redis_client, paused)
    beat(other)

    assert other.get(timeout=SOON).payload == "work"
    with pytest.raises(SimpleQueue.Empty):
        paused.get(timeout=0.5)


def test_a_late_reply_brings_nothing_that_went_back(
    consume: Open, published: SimpleQueue, redis_client: redis.Redis
) -> None:
    """With pool solo it lies unread while a task runs, and the thread that beats has given back what it names."""
    busy, other = consume(), consume()
    with pytest.raises(SimpleQueue.Empty):
        busy.get(timeout=0.1)
    published.put("work")
    wait_until(lambda: redis_client.llen(QUEUE) == 0, "delivery")

    beat(busy)
    beat(busy)

    message = other.get(timeout=SOON)
    with pytest.raises(SimpleQueue.Empty):
        busy.get(timeout=0.5)
    message.requeue()
    assert busy.get(timeout=SOON).payload == "work"


def test_a_message_whose_delivery_is_cut_off_goes_back(
    consume: Open, published: SimpleQueue, shared_redis_server: RedisServer
) -> None:
    """Redis has moved it, the reply is lost with the connection."""
    with proxy_to(shared_redis_server.port) as proxy:
        queue = consume(f"redis://127.0.0.1:{proxy.port}/0", timeout_seconds=2.0)
        with pytest.raises(SimpleQueue.Empty):
            queue.get(timeout=0.1)
        proxy.drops_replies = True
        published.put("work")
        time.sleep(0.2)
        proxy.cut()
        proxy.drops_replies = False

        assert _persistently(lambda: queue.get(timeout=1.0)).payload == "work"


def test_an_acknowledgement_is_made_up_for_when_redis_is_back(
    consume: Open, published: SimpleQueue, shared_redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    """A task that is done while Redis is away is not run again."""
    with proxy_to(shared_redis_server.port) as proxy:
        queue = consume(f"redis://127.0.0.1:{proxy.port}/0")
        published.put("work")
        message = queue.get(timeout=SOON)
        proxy.refuses = True
        proxy.cut()

        message.ack()

        assert len(list(redis_client.scan_iter(f"{KEY}:taken:*"))) == 1
        proxy.refuses = False
        _persistently(lambda: beat(queue))
        assert list(redis_client.scan_iter(f"{KEY}:taken:*")) == []


def test_a_redis_that_says_nothing_is_not_waited_for(
    consume: Open, published: SimpleQueue, shared_redis_server: RedisServer
) -> None:
    """The loop's next sign of life is due, by a connection that may be better."""
    with proxy_to(shared_redis_server.port) as proxy:
        queue = consume(f"redis://127.0.0.1:{proxy.port}/0", timeout_seconds=1.5)
        published.put("work")
        message = queue.get(timeout=SOON)
        began_at = time.monotonic()

        proxy.deaden()
        beat(queue)
        proxy.drops_replies = True
        message.ack()

        assert time.monotonic() - began_at < 1.5
        proxy.drops_replies = False


@pytest.mark.timeout(30)
def test_a_connection_lost_to_broadcasts_is_noticed_at_once(
    shared_redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    """redis-py would connect again and read until somebody broadcasts something, the loop's whole process with it."""
    news = Queue("news", exchange=Exchange("news", type="fanout"))
    with (
        proxy_to(shared_redis_server.port) as proxy,
        Connection(f"redis://127.0.0.1:{proxy.port}/0", transport=Transport) as connection,
        connection.Consumer(news, callbacks=[lambda *_: None]),
    ):
        with pytest.raises(TimeoutError):
            while True:
                connection.drain_events(timeout=0.3)
        proxy.cut()

        with pytest.raises(redis.ConnectionError):
            connection.drain_events(timeout=0.3)


def test_a_closed_channel_keeps_its_messages_and_can_acknowledge_them(
    consume: Open, published: SimpleQueue, redis_client: redis.Redis
) -> None:
    """A reconnect closes it while tasks run."""
    published.put("work")
    queue = consume()
    message = queue.get(timeout=SOON)

    queue.channel.connection.client.collect()

    assert redis_client.llen(QUEUE) == 0
    message.ack()
    assert list(redis_client.scan_iter(f"{KEY}:taken:*")) == []


def test_a_full_redis_is_waited_for(consume: Open, published: SimpleQueue, redis_client: redis.Redis) -> None:
    """What is there stays there: nobody could say that it began. What was delivered before is settled."""
    queue = consume()
    queue.channel.basic_qos(0, 1, apply_global=True)
    for number in range(2):
        published.put(number)
    message = queue.get(timeout=SOON)
    redis_client.config_set("maxmemory", 1)
    try:
        message.ack()
        with pytest.raises(SimpleQueue.Empty):
            queue.get(timeout=1.5)
        assert redis_client.llen(QUEUE) == 1
        assert list(redis_client.scan_iter(f"{KEY}:taken:*")) == []
    finally:
        redis_client.config_set("maxmemory", 0)

    assert numbers(queue, 1) == [1]


def _persistently(act: Callable[[], Any]) -> Any:
    """Try again while the connection is being lost and made anew."""
    for _ in range(20):
        try:
            return act()
        except (redis.ConnectionError, redis.TimeoutError, SimpleQueue.Empty, OSError):
            time.sleep(0.1)
    return act()
