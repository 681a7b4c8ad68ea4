# SPDX-License-Identifier: Apache-2.0
"""Leases are kept alive in the background, and only those that somebody still has."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from tests.support.ports import wait_until
from tests.support.proxy import proxy_to
from tests.support.redis_server import RedisServer
from tests.unit.lock.conftest import NAME
from worker.errors import LeaseLost
from worker.lock import LockMode, ReadWriteLock
from worker.lock.lease import elapsed

pytestmark = pytest.mark.redis


class FailingClient(redis.Redis):
    """A client whose next command raises `failure`, once."""

    failure: BaseException | None = None

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        """Raise, or do as asked."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return super().execute_command(*arguments, **options)


@pytest.fixture
def failing_client(redis_client: redis.Redis, redis_url: str) -> Iterator[FailingClient]:
    """A second client of the emptied server."""
    with FailingClient.from_url(redis_url) as client:
        yield client


def _check_for(check: Callable[[], None], *, seconds: float) -> None:
    """Check again and again until it raises."""
    until = elapsed() + seconds
    while elapsed() < until:
        check()


def _let_pass(seconds: float) -> None:
    until = elapsed() + seconds
    wait_until(lambda: elapsed() > until, "time")


def test_a_lease_is_renewed_for_as_long_as_it_is_held(brief_lock: ReadWriteLock) -> None:
    """Two and a half leases later it is the same lease."""
    with brief_lock.exclusive() as lease:
        _let_pass(2.5)

        lease.check()
        assert [holder.owner for holder in brief_lock.snapshot().holders] == [lease.owner]


def test_all_leases_of_a_process_are_renewed_in_one_round_trip(
    brief_lock: ReadWriteLock, redis_client: redis.Redis
) -> None:
    """Thirty leases cost the server as many commands as one."""
    leases = [brief_lock.acquire(LockMode.SHARED) for _ in range(30)]
    redis_client.config_resetstat()

    _let_pass(2.0)

    calls = redis_client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert 3 <= calls <= 8
    for lease in leases:
        assert lease.release()


def test_there_is_one_renewer_thread_however_many_locks(redis_client: redis.Redis) -> None:
    """Locks, leases and callers share it."""
    locks = [ReadWriteLock(redis_client, f"{NAME}:{number}") for number in range(3)]
    leases = [lock.acquire(LockMode.SHARED) for lock in locks]

    assert [thread.name for thread in threading.enumerate()].count("lock-renewer") == 1
    assert all(lease.release() for lease in leases)


@pytest.mark.parametrize("held_seconds", [0.0, 1.5])
def test_a_lease_that_its_owner_dropped_is_left_to_lapse(brief_lock: ReadWriteLock, held_seconds: float) -> None:
    """Lost to a signal's exception, before it was ever renewed or after, it does not block for ever."""
    dropped = brief_lock.acquire(LockMode.SHARED)
    _let_pass(held_seconds)

    del dropped

    with brief_lock.exclusive(timeout_seconds=20) as lease:
        lease.check()


def test_a_holder_learns_that_redis_lost_its_lease(brief_lock: ReadWriteLock, redis_client: redis.Redis) -> None:
    """The next renewal finds nothing, and does not bring the lease back."""
    with brief_lock.shared() as lease:
        redis_client.flushall()

        with pytest.raises(LeaseLost, match="Redis lost it"):
            _check_for(lease.check, seconds=20)
        assert brief_lock.snapshot().holders == ()


def test_a_renewal_survives_a_short_outage(own_redis_server: RedisServer) -> None:
    """An attempt that fails is repeated well before the lease runs out."""
    with proxy_to(own_redis_server.port) as proxy:
        client = redis.Redis(host="127.0.0.1", port=proxy.port, socket_timeout=0.2, retry=None)
        with client, ReadWriteLock(client, NAME, lease_seconds=3.0).shared() as lease:
            proxy.drops_replies = True
            _let_pass(1.5)
            proxy.drops_replies = False
            _let_pass(2.5)

            lease.check()


def test_an_unforeseen_failure_is_logged_and_the_renewal_tried_again(
    failing_client: FailingClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither this lease is lost for it nor those that come later."""
    with ReadWriteLock(failing_client, NAME, lease_seconds=2.0, token_floor=lambda: 0).shared() as lease:
        failing_client.failure = ZeroDivisionError("unforeseen")

        _let_pass(3.0)

        lease.check()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "ZeroDivisionError: unforeseen" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lease_starts_the_renewer_again_if_it_has_ended(failing_client: FailingClient) -> None:
    """Whatever ended it, leases of this process are renewed again."""
    lock = ReadWriteLock(failing_client, NAME, lease_seconds=2.0, token_floor=lambda: 0)
    with lock.shared():
        failing_client.failure = SystemExit()
        wait_until(lambda: "lock-renewer" not in [thread.name for thread in threading.enumerate()], "the end")

    with lock.shared() as lease:
        _let_pass(3.0)

        lease.check()
