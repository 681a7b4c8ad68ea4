# SPDX-License-Identifier: Apache-2.0
"""The lock as its callers see it. The first five are the ancestor's `ReadWriteLockTest`."""

import os
import signal
import threading

import pytest
import redis

from tests.support.ports import free_port, wait_until
from tests.unit.lock.callers import Caller, callers
from tests.unit.lock.conftest import NAME
from worker.errors import InvalidArgument, LeaseLost, LockTimeout, StateUnavailable
from worker.lock import LockMode, ReadWriteLock
from worker.lock.scripts import LockScripts, Outcome

pytestmark = pytest.mark.redis


class SoftTimeLimit(Exception):
    """What a signal handler raises in the middle of anything."""


def _raise_soft_time_limit(*_: object) -> None:
    raise SoftTimeLimit


SHARED, EXCLUSIVE = LockMode.SHARED, LockMode.EXCLUSIVE


@pytest.mark.parametrize("mode", LockMode)
def test_a_free_lock_is_granted_at_once(lock: ReadWriteLock, mode: LockMode) -> None:
    """LockWhenUnlocked: whoever comes first holds."""
    lease = lock.acquire(mode, timeout_seconds=0)

    lease.check()
    assert [(holder.owner, holder.mode) for holder in lock.snapshot().holders] == [(lease.owner, mode)]
    assert lease.release()
    assert lock.snapshot().holders == ()


def test_a_writer_blocks_readers(lock: ReadWriteLock) -> None:
    """BlockReads: readers wait until the writer is done, then hold together."""
    writer = lock.acquire(EXCLUSIVE)

    with callers(lock, SHARED, SHARED) as readers:
        assert not any(reader.holds for reader in readers)
        writer.release()

        assert {reader.granted().owner for reader in readers} == {holder.owner for holder in lock.snapshot().holders}


def test_holders_of_either_mode_block_a_writer(lock: ReadWriteLock) -> None:
    """BlockWrites: a writer waits for every reader, and for another writer."""
    readers = [lock.acquire(SHARED), lock.acquire(SHARED)]

    with callers(lock, EXCLUSIVE, EXCLUSIVE) as (first, second):
        readers[0].release()
        assert not first.holds
        readers[1].release()
        first.granted()
        assert not second.holds
        assert [waiter.mode for waiter in lock.snapshot().waiters] == [EXCLUSIVE]


def test_readers_hold_together(lock: ReadWriteLock) -> None:
    """ConcurrentReads: no reader waits for another, and together they have one token."""
    leases = [lock.acquire(SHARED, timeout_seconds=0) for _ in range(5)]

    assert len(lock.snapshot().holders) == 5
    assert len({lease.token for lease in leases}) == 1
    assert len({lease.owner for lease in leases}) == 5


def test_nobody_starves_and_the_order_is_that_of_arrival(lock: ReadWriteLock) -> None:
    """NoStarvation: W1, R1 R2, W2, R3 R4 are granted in exactly these groups."""
    first = lock.acquire(EXCLUSIVE)
    order = (SHARED, SHARED, EXCLUSIVE, SHARED, SHARED)
    waiting = [Caller(lock, mode).start() for mode in order]
    assert [waiter.mode for waiter in lock.snapshot().waiters] == list(order)

    first.release()
    tokens = [first.token]
    for group in (waiting[:2], waiting[2:3], waiting[3:]):
        leases = [caller.granted() for caller in group]
        assert {lease.owner for lease in leases} == {holder.owner for holder in lock.snapshot().holders}
        tokens += {lease.token for lease in leases}
        for caller in group:
            caller.release()

    assert len(tokens) == 4
    assert tokens == sorted(tokens)


def test_a_reader_never_overtakes_a_waiting_writer(lock: ReadWriteLock) -> None:
    """A reader that could share with the holders waits if a writer was there before it."""
    reader = lock.acquire(SHARED)
    writer = Caller(lock, EXCLUSIVE).start()

    with pytest.raises(LockTimeout):
        lock.acquire(SHARED, timeout_seconds=0)

    reader.release()
    writer.granted()
    writer.release()
    lock.acquire(SHARED, timeout_seconds=0).release()


def test_readers_behind_a_writer_that_gives_up_are_woken(lock: ReadWriteLock) -> None:
    """The place of a writer that gave up is passed on at once."""
    holder = lock.acquire(SHARED)
    writer = Caller(lock, EXCLUSIVE, timeout_seconds=1.0).start()
    reader = Caller(lock, SHARED).start()

    reader.granted()
    reader.release()
    writer.release()
    assert isinstance(writer.error, LockTimeout)
    holder.release()


def test_a_timeout_names_the_lock_and_leaves_no_trace(lock: ReadWriteLock) -> None:
    """Who gives up waits no longer, and says for what and how long it waited."""
    holder = lock.acquire(EXCLUSIVE)

    with pytest.raises(LockTimeout, match=r"not granted for shared use within 0\.05 s") as caught:
        lock.acquire(SHARED, timeout_seconds=0.05)

    assert caught.value.lock == NAME
    assert lock.snapshot().waiters == ()
    assert [party.owner for party in lock.snapshot().holders] == [holder.owner]


def test_an_exception_while_waiting_leaves_the_queue(lock: ReadWriteLock) -> None:
    """A signal's exception, such as a task's soft time limit, gives up the place."""
    lock.acquire(EXCLUSIVE)
    previous = signal.signal(signal.SIGUSR1, _raise_soft_time_limit)
    waits = threading.Thread(
        target=lambda: (
            wait_until(lambda: bool(lock.snapshot().waiters), "waiting"),
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1),
        )
    )
    waits.start()

    try:
        with pytest.raises(SoftTimeLimit):
            lock.acquire(SHARED)
    finally:
        signal.signal(signal.SIGUSR1, previous)

    waits.join()
    assert lock.snapshot().waiters == ()


def test_the_context_managers_release_whatever_happens(lock: ReadWriteLock) -> None:
    """An error inside the block passes through and the lock is free."""
    with pytest.raises(ZeroDivisionError), lock.exclusive():
        _ = 1 // 0
    with lock.shared() as first, lock.shared() as second:
        assert first.token == second.token

    assert lock.snapshot().holders == ()


def test_an_uncontended_lock_costs_one_command_to_acquire_and_one_to_release(
    lock: ReadWriteLock, redis_client: redis.Redis
) -> None:
    """Nothing else is sent to the server; what the scripts call inside is not a round trip."""
    lock.acquire(SHARED).release()
    redis_client.config_resetstat()

    with lock.shared():
        pass
    with lock.exclusive():
        pass

    statistics = redis_client.info("commandstats")
    assert statistics["cmdstat_evalsha"]["calls"] == 4
    assert not {"cmdstat_eval", "cmdstat_script|load", "cmdstat_blpop", "cmdstat_get"} & set(statistics)


def test_a_waiter_sleeps_until_it_is_rung(lock: ReadWriteLock, redis_client: redis.Redis) -> None:
    """However long it waits, it asks once, blocks once and asks once more."""
    holder = lock.acquire(EXCLUSIVE)
    lock.snapshot()
    redis_client.config_resetstat()
    waiter = threading.Thread(target=lambda: lock.acquire(SHARED).release())
    waiter.start()
    wait_until(lambda: redis_client.info("clients")["blocked_clients"] > 0, "blocking")

    holder.release()
    waiter.join(timeout=60)

    statistics = redis_client.info("commandstats")
    assert statistics["cmdstat_evalsha"]["calls"] == 4
    assert statistics["cmdstat_blpop"]["calls"] == 1


def test_a_dead_holder_blocks_for_one_lease_only(brief_lock: ReadWriteLock, redis_client: redis.Redis) -> None:
    """What a killed process held becomes free without anybody releasing it."""
    scripts = LockScripts(redis_client, NAME, lease_seconds=1.0)
    assert scripts.acquire("dead", SHARED, floor=0).outcome is Outcome.GRANTED

    with brief_lock.exclusive(timeout_seconds=60) as lease:
        assert [holder.owner for holder in brief_lock.snapshot().holders] == [lease.owner]
    assert scripts.renew([(SHARED, "dead")]) == [0]


def test_a_dead_waiter_loses_its_place(brief_lock: ReadWriteLock, redis_client: redis.Redis) -> None:
    """A writer killed while it waited does not keep readers out for ever."""
    scripts = LockScripts(redis_client, NAME, lease_seconds=1.0)
    with brief_lock.shared() as holder:
        assert scripts.acquire("dead", EXCLUSIVE, floor=0).outcome is Outcome.WAITING

        with brief_lock.shared(timeout_seconds=60):
            holder.check()
            assert brief_lock.snapshot().waiters == ()


def test_a_withdrawn_waiter_is_told(lock: ReadWriteLock, redis_client: redis.Redis) -> None:
    """Whoever releases a waiting owner ends its waiting."""
    holder = lock.acquire(EXCLUSIVE)
    waiter = Caller(lock, SHARED).start()
    owner = lock.snapshot().waiters[0].owner

    LockScripts(redis_client, NAME, lease_seconds=300).release(owner)
    redis_client.lpush(f"{NAME}:bell:{owner}", "1")

    waiter.release()
    assert isinstance(waiter.error, LeaseLost)
    holder.release()


def test_the_view_shows_holders_and_waiters_in_order_of_arrival(lock: ReadWriteLock) -> None:
    """An operator sees who holds, who waits, for how long, and how long each can stay silent."""
    lease = lock.acquire(SHARED)
    with callers(lock, EXCLUSIVE, SHARED):
        view = lock.snapshot()

        assert view.token == lease.token
        assert view.quarantine_seconds == 0
        assert [(party.owner, party.mode) for party in view.holders] == [(lease.owner, SHARED)]
        assert [party.mode for party in view.waiters] == [EXCLUSIVE, SHARED]
        assert all(0 <= party.age_seconds < 60 for party in (*view.holders, *view.waiters))
        assert all(0 < party.remaining_seconds <= 300 for party in (*view.holders, *view.waiters))
        assert lease.owner.split(":")[1] == str(os.getpid())
        lease.release()


def test_a_stuck_holder_can_be_shortened_but_not_below_its_promise(
    brief_lock: ReadWriteLock, redis_client: redis.Redis
) -> None:
    """An operator ends a lease that is renewed for ever, without taking what its holder may be relying on."""
    with brief_lock.exclusive() as stuck:
        seconds = brief_lock.shorten(stuck.owner, 0)

        assert seconds is not None
        assert 0 < seconds <= 1.0
        with brief_lock.shared(timeout_seconds=60):
            with pytest.raises(LeaseLost):
                stuck.check()
            assert brief_lock.shorten(stuck.owner, 0) is None
    assert not redis_client.exists(f"{NAME}:capped")


def test_a_lease_must_be_positive(redis_client: redis.Redis) -> None:
    """A lease of no length is refused before anything is sent."""
    with pytest.raises(InvalidArgument, match="lease_seconds"):
        ReadWriteLock(redis_client, NAME, lease_seconds=0)


def test_a_client_that_decodes_answers_serves_as_well(redis_url: str) -> None:
    """Callers bring the client they have."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        lock = ReadWriteLock(client, NAME, token_floor=lambda: 0)
        with lock.exclusive() as lease:
            assert lock.snapshot().holders[0].owner == lease.owner
            with pytest.raises(LockTimeout):
                lock.acquire(SHARED, timeout_seconds=0.01)


def test_an_unreachable_redis_is_a_transient_error() -> None:
    """The client's errors are translated."""
    client = redis.Redis(host="127.0.0.1", port=free_port(), retry=None)

    with client, pytest.raises(StateUnavailable, match="ConnectionError"):
        ReadWriteLock(client, NAME).acquire(SHARED)


def test_a_server_that_forgot_the_scripts_is_given_them_again(lock: ReadWriteLock, redis_client: redis.Redis) -> None:
    """SCRIPT FLUSH or a failover between acquire and release goes unnoticed."""
    lease = lock.acquire(EXCLUSIVE)
    redis_client.script_flush()

    assert lease.release()
    redis_client.script_flush()
    lock.acquire(SHARED).release()


def test_the_lock_works_while_redis_is_out_of_memory(lock: ReadWriteLock, redis_client: redis.Redis) -> None:
    """Release frees others above all when the server refuses writes."""
    lock.acquire(SHARED).release()
    redis_client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            redis_client.set("anything", "else")
        with lock.exclusive() as lease:
            lease.check()
    finally:
        redis_client.config_set("maxmemory", 0)

    assert lock.snapshot().holders == ()


def test_many_callers_leave_nothing_but_the_state_and_their_tombstones(
    lock: ReadWriteLock, redis_client: redis.Redis
) -> None:
    """No key grows with use: bells, queues and holders are gone when everybody is."""
    with callers(lock, SHARED, SHARED, EXCLUSIVE, SHARED):
        pass

    assert set(redis_client.keys()) == {NAME.encode(), f"{NAME}:released".encode()}
