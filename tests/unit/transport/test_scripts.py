# SPDX-License-Identifier: Apache-2.0
"""Each transition on a real server: a message is in one place, whatever is repeated or comes too late."""

import time
from collections.abc import Sequence

import pytest
import redis

from tests.unit.transport.conftest import KEY
from worker.transport.scripts import Delivery, QueueScripts, Settled

pytestmark = pytest.mark.redis

LIST = "jobs"
LONG_MS = 300_000


def known(scripts: QueueScripts, *consumers: str, lease_ms: int = LONG_MS, sources: Sequence[str] = (LIST,)) -> None:
    """Let consumers give a sign of life."""
    for consumer in consumers:
        assert scripts.beat(consumer, lease_ms=lease_ms, limit=3, sources=sources) is not None


def delivery(scripts: QueueScripts, consumer: str = "a") -> Delivery:
    """Take the one message there is."""
    (taken,) = scripts.take(consumer, count=1, sources=[LIST]) or ()
    return taken


def pass_for_dead(client: redis.Redis, consumer: str) -> None:
    """Let the consumer's sign of life be long past."""
    client.zadd(f"{KEY}:consumers", {consumer: 1}, xx=True)


def queued(client: redis.Redis) -> list[bytes]:
    """The queue, what is taken next first."""
    return client.lrange(LIST, 0, -1)[::-1]


def test_a_delivered_message_is_in_the_record_and_nowhere_else(
    scripts: QueueScripts, redis_client: redis.Redis
) -> None:
    """In the order they came, from the first list first."""
    redis_client.lpush(LIST, b"1", b"2")
    redis_client.lpush("others", b"3")
    known(scripts, "a", sources=[LIST, "others"])

    taken = scripts.take("a", count=3, sources=[LIST, "others"])

    assert taken is not None
    assert [(each.source, each.message) for each in taken] == [(LIST, b"1"), (LIST, b"2"), ("others", b"3")]
    assert scripts.records("a", [LIST]) == [taken[1], taken[0]]
    assert redis_client.exists(LIST, "others") == 0


def test_an_acknowledged_message_is_gone_and_the_echo_says_so(scripts: QueueScripts, redis_client: redis.Redis) -> None:
    """A second copy of the same bytes is another message."""
    redis_client.lpush(LIST, b"1", b"1")
    known(scripts, "a")
    first, second = scripts.take("a", count=2, sources=[LIST]) or ()

    assert scripts.acknowledge(first) is Settled.DONE
    assert scripts.records("a", [LIST]) == [second]
    assert scripts.acknowledge(second) is Settled.DONE
    assert scripts.acknowledge(second) is Settled.ECHO
    assert queued(redis_client) == []


def test_a_dead_consumers_messages_go_back_once_and_in_order(scripts: QueueScripts, redis_client: redis.Redis) -> None:
    """By whoever notices first; the next one finds nothing to do."""
    known(scripts, "a", "b", "c")
    redis_client.lpush(LIST, b"1", b"2", b"3")
    scripts.take("a", count=2, sources=[LIST])
    pass_for_dead(redis_client, "a")

    noticed = scripts.beat("b", lease_ms=LONG_MS, limit=3, sources=[LIST])
    later = scripts.beat("c", lease_ms=LONG_MS, limit=3, sources=[LIST])

    assert noticed is not None
    assert later is not None
    assert (noticed.ended, later.ended) == ({"a": 2}, {})
    assert queued(redis_client) == [b"1", b"2", b"3"]


def test_a_living_consumer_keeps_its_messages_for_ever(scripts: QueueScripts, redis_client: redis.Redis) -> None:
    """Its sign of life is what counts, not the time of delivery."""
    known(scripts, "a", "b")
    redis_client.lpush(LIST, b"1")
    taken = delivery(scripts)
    pass_for_dead(redis_client, "a")

    known(scripts, "a", "b")

    assert scripts.records("a", [LIST]) == [taken]


def test_a_consumer_that_was_ended_changes_nothing_any_more(scripts: QueueScripts, redis_client: redis.Redis) -> None:
    """Not even by an acknowledgement of what is somebody else's now."""
    known(scripts, "a", "b")
    redis_client.lpush(LIST, b"1")
    lost = delivery(scripts, "a")
    pass_for_dead(redis_client, "a")
    known(scripts, "b")
    theirs = delivery(scripts, "b")

    for settle in (scripts.acknowledge, scripts.give_back, lambda each: scripts.bury(each, reason="bad")):
        assert settle(lost) is Settled.GONE
    assert scripts.beat("a", lease_ms=LONG_MS, limit=3, sources=[LIST]) is None
    assert scripts.take("a", count=1, sources=[LIST]) is None
    assert scripts.leave("a") == 0
    assert scripts.records("b", [LIST]) == [theirs]


def test_a_wait_of_an_ended_consumer_is_refused_and_moves_nothing(
    scripts: QueueScripts, redis_client: redis.Redis
) -> None:
    """A paused process has left a BLMOVE behind; nobody would ever look into the list it moves to."""
    known(scripts, "a", "b")
    waiting = redis_client.connection_pool.get_connection()
    waiting.send_command("BLMOVE", LIST, scripts.record_key("a", LIST), "RIGHT", "LEFT", 60)
    pass_for_dead(redis_client, "a")
    known(scripts, "b")

    redis_client.lpush(LIST, b"1")

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        waiting.read_response()
    redis_client.connection_pool.release(waiting)
    assert queued(redis_client) == [b"1"]
    assert delivery(scripts, "b").message == b"1"


def test_a_message_over_which_consumers_die_is_laid_aside(scripts: QueueScripts, redis_client: redis.Redis) -> None:
    """After the limit's number of deaths, with the reason; what was returned in good order does not count."""
    redis_client.lpush(LIST, b"bad")
    for number in range(3):
        known(scripts, "watch", f"victim{number}")
        assert scripts.give_back(delivery(scripts, f"victim{number}")) is Settled.DONE
        delivery(scripts, f"victim{number}")
        pass_for_dead(redis_client, f"victim{number}")
        beat = scripts.beat("watch", lease_ms=LONG_MS, limit=3, sources=[LIST])
        assert beat is not None
        assert beat.buried == ([b"bad"] if number == 2 else [])

    (letter,) = redis_client.zrange(f"{KEY}:dead", 0, -1)

    row = redis_client.hgetall(f"{KEY}:dead:{letter.decode()}")
    assert (row[b"list"], row[b"message"]) == (b"jobs", b"bad")
    assert b"3 times" in row[b"reason"]
    assert queued(redis_client) == []
    assert list(redis_client.scan_iter(f"{KEY}:failed:*")) == []


def test_failures_are_forgotten_once_a_message_is_done(scripts: QueueScripts, redis_client: redis.Redis) -> None:
    """The same bytes published again start anew."""
    known(scripts, "a")
    redis_client.lpush(LIST, b"1")
    scripts.give_back(delivery(scripts), limit=3)
    assert list(redis_client.scan_iter(f"{KEY}:failed:*"))

    scripts.acknowledge(delivery(scripts))

    assert list(redis_client.scan_iter(f"{KEY}:failed:*")) == []


def test_a_message_waits_in_redis_until_it_is_due(scripts: QueueScripts, redis_client: redis.Redis) -> None:
    """Then any consumer's beat moves it; whose it was before does not matter."""
    known(scripts, "a", sources=["odd:1:name"])
    redis_client.lpush("odd:1:name", b"1:later")
    (taken,) = scripts.take("a", count=1, sources=["odd:1:name"]) or ()
    now_ms = int(redis_client.time()[0]) * 1000

    assert scripts.delay(taken, due_ms=now_ms - 1000) is Settled.DUE
    assert scripts.records("a", ["odd:1:name"]) == [taken]
    assert scripts.delay(taken, due_ms=now_ms + LONG_MS) is Settled.DONE
    assert scripts.delay(taken, due_ms=now_ms + LONG_MS) is Settled.ECHO
    scripts.leave("a")
    known(scripts, "b")
    assert redis_client.exists("odd:1:name") == 0

    (member,) = redis_client.zrange(f"{KEY}:delayed", 0, -1)
    redis_client.zadd(f"{KEY}:delayed", {member: now_ms - 1000})
    known(scripts, "b")
    assert redis_client.lrange("odd:1:name", 0, -1) == [b"1:later"]
    assert redis_client.exists(f"{KEY}:delayed") == 0


def test_whoever_leaves_gives_everything_back(scripts: QueueScripts, redis_client: redis.Redis) -> None:
    """At once, in order, and without a mark against the messages."""
    known(scripts, "a")
    redis_client.lpush(LIST, b"1", b"2", b"3")
    scripts.take("a", count=2, sources=[LIST])

    assert scripts.leave("a") == 2
    assert scripts.leave("a") == 0

    assert queued(redis_client) == [b"1", b"2", b"3"]
    assert list(redis_client.scan_iter(f"{KEY}:failed:*")) == []


def test_a_restart_of_the_server_ends_nobody(scripts: QueueScripts, redis_client: redis.Redis) -> None:
    """Nobody could give a sign of life while it was away."""
    known(scripts, "a", "b")
    pass_for_dead(redis_client, "a")
    redis_client.set(f"{KEY}:run", "another")

    first = scripts.beat("b", lease_ms=LONG_MS, limit=3, sources=[LIST])
    pass_for_dead(redis_client, "a")
    second = scripts.beat("b", lease_ms=LONG_MS, limit=3, sources=[LIST])

    assert first is not None
    assert second is not None
    assert (first.ended, second.ended) == ({}, {"a": 0})


def test_a_silence_ends_nobody(scripts: QueueScripts, redis_client: redis.Redis) -> None:
    """The server stood still, or its clock made a step: all have one lease, and whoever is dead then is ended."""
    known(scripts, "a", "b")
    pass_for_dead(redis_client, "a")
    now_ms = int(redis_client.time()[0]) * 1000
    redis_client.set(f"{KEY}:beat_at", now_ms - LONG_MS)

    first = scripts.beat("b", lease_ms=LONG_MS, limit=3, sources=[LIST])
    pass_for_dead(redis_client, "a")
    second = scripts.beat("b", lease_ms=LONG_MS, limit=3, sources=[LIST])

    assert first is not None
    assert second is not None
    assert (first.ended, second.ended) == ({}, {"a": 0})


def test_whoever_comes_after_the_last_one_died_waits_one_lease(
    scripts: QueueScripts, redis_client: redis.Redis
) -> None:
    """It cannot tell that from a server that stood still; and no longer than that."""
    known(scripts, "dead", lease_ms=200)
    redis_client.lpush(LIST, b"1")
    delivery(scripts, "dead")
    time.sleep(0.3)

    began_at = time.monotonic()
    while not queued(redis_client):
        known(scripts, "newcomer", lease_ms=200)
        time.sleep(0.01)

    assert 0.2 <= time.monotonic() - began_at < 0.3


def test_a_full_server_settles_and_delivers_nothing(scripts: QueueScripts, redis_client: redis.Redis) -> None:
    """With noeviction what ends work helps; what began could not even say so."""
    known(scripts, "a")
    redis_client.lpush(LIST, b"1", b"2", b"3")
    done, returned = scripts.take("a", count=2, sources=[LIST]) or ()
    redis_client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            scripts.take("a", count=1, sources=[LIST])
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            redis_client.blmove(LIST, scripts.record_key("a", LIST), 1, "RIGHT", "LEFT")
        known(scripts, "a")
        assert scripts.acknowledge(done) is Settled.DONE
        assert scripts.give_back(returned) is Settled.DONE
        assert queued(redis_client) == [b"2", b"3"]
    finally:
        redis_client.config_set("maxmemory", 0)
