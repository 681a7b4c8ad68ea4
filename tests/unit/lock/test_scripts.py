# SPDX-License-Identifier: Apache-2.0
"""The transitions when replies are lost, data is lost and servers are replaced."""

import threading
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.ports import wait_until
from tests.support.proxy import Proxy, proxy_to
from tests.support.redis_server import RedisServer
from tests.unit.lock.conftest import NAME
from worker.errors import LockTimeout
from worker.lock import LockMode, ReadWriteLock
from worker.lock.scripts import LockScripts, Outcome

pytestmark = pytest.mark.redis

SHARED, EXCLUSIVE = LockMode.SHARED, LockMode.EXCLUSIVE


@pytest.fixture
def scripts(redis_client: redis.Redis) -> LockScripts:
    """The scripts of a lock with the default lease."""
    return LockScripts(redis_client, NAME, lease_seconds=30.0)


@pytest.fixture
def proxy(own_redis_server: RedisServer) -> Iterator[Proxy]:
    """A network that loses replies."""
    with proxy_to(own_redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def proxied_lock(proxy: Proxy) -> Iterator[ReadWriteLock]:
    """A lock behind the proxy, on a client that sends a command again when no reply comes in 0.3 s."""
    retry = Retry(NoBackoff(), 20)
    with redis.Redis(host="127.0.0.1", port=proxy.port, socket_timeout=0.3, retry=retry) as client:
        yield ReadWriteLock(client, NAME, token_floor=lambda: 0)


def _lose_first_reply(proxy: Proxy) -> threading.Thread:
    """Throw replies away until a request has been sent twice."""
    sent = proxy.requests
    proxy.drops_replies = True

    def stop() -> None:
        wait_until(lambda: proxy.requests >= sent + 2, "repetition", seconds=20, poll_seconds=0.005)
        proxy.cut()
        proxy.drops_replies = False

    thread = threading.Thread(target=stop)
    thread.start()
    return thread


@pytest.mark.parametrize("mode", LockMode)
def test_acquire_again_is_the_same_lease(scripts: LockScripts, mode: LockMode) -> None:
    """An owner has one lease however often its request is repeated."""
    first = scripts.acquire("owner", mode, floor=0)
    again = scripts.acquire("owner", mode, floor=0)

    assert (again.outcome, again.token) == (Outcome.GRANTED, first.token)
    assert len(scripts.view().holders) == 1


def test_waiting_again_keeps_the_place(scripts: LockScripts) -> None:
    """A repeated request does not go to the back of the queue, nor stand there twice."""
    scripts.acquire("holder", EXCLUSIVE, floor=0)
    for owner in ("first", "second", "first"):
        assert scripts.acquire(owner, EXCLUSIVE, floor=0).outcome is Outcome.WAITING

    assert [waiter.owner for waiter in scripts.view().waiters] == ["first", "second"]


def test_a_writer_does_not_overtake_readers_that_were_rung_and_have_not_asked_yet(scripts: LockScripts) -> None:
    """Between the bell and the grant a reader's place is still its own."""
    for owner, mode in (("first", EXCLUSIVE), ("reader", SHARED), ("second", EXCLUSIVE)):
        scripts.acquire(owner, mode, floor=0)
    scripts.release("first")

    assert scripts.acquire("second", EXCLUSIVE, floor=0).outcome is Outcome.WAITING
    assert scripts.acquire("reader", SHARED, floor=0).outcome is Outcome.GRANTED


def test_a_bell_is_rung_once_until_it_is_answered(scripts: LockScripts, redis_client: redis.Redis) -> None:
    """However much happens before the waiter wakes, one element waits for it."""
    for owner, mode in (("holder", SHARED), ("writer", EXCLUSIVE), ("reader", SHARED)):
        scripts.acquire(owner, mode, floor=0)
    scripts.release("holder")
    scripts.release("reader")

    assert redis_client.llen(f"{NAME}:bell:writer") == 1


def test_whoever_finds_a_lapsed_lease_rings_those_it_kept_waiting(
    scripts: LockScripts, redis_client: redis.Redis
) -> None:
    """A reader that comes after a dead writer wakes the reader that waited for it."""
    scripts.acquire("dead", EXCLUSIVE, floor=0)
    assert scripts.acquire("waiting", SHARED, floor=0).outcome is Outcome.WAITING
    redis_client.zadd(f"{NAME}:held:exclusive", {"dead": 1})

    assert scripts.acquire("new", SHARED, floor=0).outcome is Outcome.GRANTED
    assert redis_client.llen(f"{NAME}:bell:waiting") == 1


def test_an_acquire_that_arrives_after_the_release_is_refused(scripts: LockScripts) -> None:
    """A request left over in a closed connection does not take a lock that nobody would release."""
    scripts.acquire("owner", EXCLUSIVE, floor=0)
    scripts.release("owner")
    scripts.release("never seen")

    assert scripts.acquire("owner", EXCLUSIVE, floor=0).outcome is Outcome.RELEASED
    assert scripts.acquire("never seen", SHARED, floor=0).outcome is Outcome.RELEASED
    assert scripts.view().holders == ()


def test_a_lost_reply_to_acquire_gives_one_lease(proxied_lock: ReadWriteLock, proxy: Proxy) -> None:
    """The client sends the script again, and holds once."""
    proxied_lock.acquire(SHARED).release()
    thread = _lose_first_reply(proxy)
    lease = proxied_lock.acquire(EXCLUSIVE)
    thread.join()

    assert [holder.owner for holder in proxied_lock.snapshot().holders] == [lease.owner]
    assert lease.release()


def test_a_lost_reply_to_release_is_no_loss(proxied_lock: ReadWriteLock, proxy: Proxy) -> None:
    """The repeated release is answered as the first was."""
    lease = proxied_lock.acquire(EXCLUSIVE)
    thread = _lose_first_reply(proxy)
    was_held = lease.release()
    thread.join()

    assert was_held
    assert proxied_lock.snapshot().holders == ()


def test_a_bell_rung_while_the_waiter_reconnects_is_heard(
    proxied_lock: ReadWriteLock, proxy: Proxy, own_redis_server: RedisServer
) -> None:
    """The bell is a list that waits, not a message that passes."""
    with own_redis_server.client() as client:
        holder = ReadWriteLock(client, NAME, token_floor=lambda: 0).acquire(EXCLUSIVE)
        waiter = threading.Thread(target=lambda: proxied_lock.acquire(SHARED).release())
        waiter.start()
        wait_until(lambda: client.info("clients")["blocked_clients"] > 0, "blocking")

        proxy.refuses = True
        proxy.cut()
        holder.release()
        proxy.refuses = False
        waiter.join(timeout=9)

        assert not waiter.is_alive()


def test_tokens_grow_with_every_writer_and_every_change_of_mode(scripts: LockScripts) -> None:
    """Grants that exclude each other are told apart, later greater; readers of one phase are alike."""
    tokens = []
    for number, mode in enumerate((SHARED, SHARED, EXCLUSIVE, EXCLUSIVE, SHARED, SHARED)):
        tokens.append(scripts.acquire(f"owner {number}", mode, floor=0).token)
        scripts.release(f"owner {number}")

    assert tokens == sorted(tokens)
    assert [tokens[0], tokens[4]] == [tokens[1], tokens[5]]
    assert len(set(tokens)) == 4


def test_a_token_is_above_what_the_resource_has_seen(scripts: LockScripts) -> None:
    """After an older copy of Redis came back, or a clock was set back, the resource's memory decides."""
    seen = 2**52
    assert scripts.acquire("before", SHARED, floor=0).token < seen
    scripts.release("before")

    writer = scripts.acquire("writer", EXCLUSIVE, floor=seen)
    scripts.release("writer")
    reader = scripts.acquire("reader", SHARED, floor=seen + 10)

    assert writer.token == seen + 1
    assert reader.token == seen + 11


def test_a_reader_is_lifted_above_what_the_resource_has_seen(scripts: LockScripts) -> None:
    """Redis came back from a copy that knows the readers before a writer, and nothing of the writer."""
    phase = scripts.acquire("before", SHARED, floor=0).token

    assert scripts.acquire("after", SHARED, floor=phase + 10**9).token == phase + 10**9 + 1


def test_a_reader_whose_token_the_resource_has_seen_keeps_it(scripts: LockScripts) -> None:
    """Readers that record their phase's token do not push each other into another."""
    first = scripts.acquire("first", SHARED, floor=0)
    second = scripts.acquire("second", SHARED, floor=first.token)

    assert second.token == first.token


def test_after_a_flush_no_writer_is_granted_for_a_lease_and_tokens_go_on_growing(redis_client: redis.Redis) -> None:
    """Redis forgot who holds: readers go on at once under a new token, writers wait until the forgotten have lapsed."""
    seen = [0]
    lock = ReadWriteLock(redis_client, NAME, lease_seconds=30, token_floor=lambda: seen[-1])
    with lock.exclusive(timeout_seconds=0) as writer:
        seen.append(writer.token)
        redis_client.flushall()

        with lock.shared(timeout_seconds=0) as reader:
            assert reader.token > writer.token
        with pytest.raises(LockTimeout):
            lock.acquire(EXCLUSIVE, timeout_seconds=0)
        assert 0 < lock.snapshot().quarantine_seconds <= 30


def test_the_quarantine_ends(redis_client: redis.Redis) -> None:
    """A lock that is new to Redis over a resource of unknown past is granted exclusively after a lease."""
    lock = ReadWriteLock(redis_client, NAME, lease_seconds=0.5)
    with lock.shared():
        assert lock.snapshot().quarantine_seconds > 0

    with lock.exclusive(timeout_seconds=60) as lease:
        lease.check()
        assert lock.snapshot().quarantine_seconds == 0


def test_readers_pass_a_writer_that_waits_for_the_quarantine(redis_client: redis.Redis) -> None:
    """Provisioning goes on while a prune waits for the sake of the past."""
    lock = LockScripts(redis_client, NAME, lease_seconds=30)
    assert lock.acquire("writer", EXCLUSIVE, floor=None).outcome is Outcome.WAITING

    assert lock.acquire("reader", SHARED, floor=None).outcome is Outcome.GRANTED


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_restarted_server_is_taken_for_an_old_copy(own_redis_server: RedisServer, is_killed: bool) -> None:
    """Nobody can tell what a server forgot: holders it knows go on, writers wait, the next token is a new one."""
    with own_redis_server.client() as client:
        lock = ReadWriteLock(client, NAME, lease_seconds=30, token_floor=lambda: 0)
        with lock.shared() as before:
            own_redis_server.kill() if is_killed else own_redis_server.stop()
            own_redis_server.start()

            with lock.shared(timeout_seconds=0) as after:
                assert after.token > before.token
                assert len(lock.snapshot().holders) == 2
        with pytest.raises(LockTimeout):
            lock.acquire(EXCLUSIVE, timeout_seconds=0)
