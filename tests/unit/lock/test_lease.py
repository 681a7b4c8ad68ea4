# SPDX-License-Identifier: Apache-2.0
"""What a lease proves, and when it stops proving it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.support.ports import wait_until
from tests.support.proxy import proxy_to
from tests.support.redis_server import RedisServer
from tests.unit.lock.conftest import NAME
from worker.errors import LeaseLost
from worker.lock import LockMode, ReadWriteLock
from worker.lock.lease import Lease, elapsed
from worker.lock.scripts import Answer, LockScripts, Outcome

pytestmark = pytest.mark.redis

HOLD_UNTIL_TOLD = """
import sys
import redis
from worker.lock import ReadWriteLock
lock = ReadWriteLock(redis.Redis.from_url(sys.argv[1]), sys.argv[2], lease_seconds=1.0, token_floor=lambda: 0)
with lock.exclusive() as lease:
    print("held", flush=True)
    sys.stdin.readline()
    try:
        lease.check()
        print("still held", flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
    print(lease.release(), flush=True)
"""


def _is_lost(lease: Lease) -> bool:
    try:
        lease.check()
    except LeaseLost:
        return True
    return False


def _in_child(act: Callable[[], object]) -> object:
    """Run `act` in a fork of this process; return its answer's text, or the name of what it raised."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = str(act())
        except Exception as error:  # noqa: BLE001 - told to the parent
            answer = type(error).__name__
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answers:
        answer = answers.read()
    os.waitpid(child, 0)
    return answer


def test_a_lease_counts_from_when_the_request_was_sent(redis_client: redis.Redis) -> None:
    """The holder stops before the server does: it counts from an earlier time, and leaves a margin."""
    scripts = LockScripts(redis_client, NAME, lease_seconds=10.0)
    answer = Answer(outcome=Outcome.GRANTED, token=7, seconds=10.0)

    fresh = Lease(scripts, "fresh", LockMode.SHARED, answer=answer, sent_at=elapsed())
    late = Lease(scripts, "late", LockMode.SHARED, answer=answer, sent_at=elapsed() - 9.5)

    assert 8.0 < fresh.remaining_seconds <= 9.0
    fresh.check()
    with pytest.raises(LeaseLost, match="not renewed in time"):
        late.check()


def test_a_lost_lease_stays_lost(redis_client: redis.Redis) -> None:
    """A renewal that comes in after the holder was told does not talk it back into acting."""
    scripts = LockScripts(redis_client, NAME, lease_seconds=10.0)
    answer = Answer(outcome=Outcome.GRANTED, token=7, seconds=10.0)
    lease = Lease(scripts, "late", LockMode.SHARED, answer=answer, sent_at=elapsed() - 20)
    assert _is_lost(lease)

    lease.renewed(sent_at=elapsed(), seconds=10.0)

    assert _is_lost(lease)


def test_release_is_safe_twice(lock: ReadWriteLock) -> None:
    """The second release says that nothing was held; a released lease proves nothing."""
    lease = lock.acquire(LockMode.EXCLUSIVE)

    assert lease.release()
    assert not lease.release()
    with pytest.raises(LeaseLost, match="it was released"):
        lease.check()


def test_release_does_not_end_somebody_elses_lease(lock: ReadWriteLock, redis_client: redis.Redis) -> None:
    """A holder whose lease was lost learns so at release, and the next holder is not disturbed."""
    lost = lock.acquire(LockMode.EXCLUSIVE)
    redis_client.delete(f"{NAME}:held:exclusive")
    current = lock.acquire(LockMode.EXCLUSIVE, timeout_seconds=0)

    assert not lost.release()
    assert [holder.owner for holder in lock.snapshot().holders] == [current.owner]


def test_release_while_redis_is_away_leaves_the_lease_to_lapse(
    own_redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The work under the lock is done and is not failed for it; others wait for at most a lease."""
    with redis.Redis(host="127.0.0.1", port=own_redis_server.port, retry=None) as client:
        lease = ReadWriteLock(client, NAME).acquire(LockMode.SHARED)
        own_redis_server.kill()

        assert not lease.release()

        assert "is left to lapse" in caplog.text
        assert _is_lost(lease)


def test_a_holder_that_was_stopped_for_longer_than_its_lease_is_told(brief_lock: ReadWriteLock, redis_url: str) -> None:
    """SIGSTOP, the lease lapses, another writer has been there, SIGCONT: the next check raises."""
    command = [sys.executable, "-c", HOLD_UNTIL_TOLD, redis_url, NAME]
    holder = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"

    holder.send_signal(signal.SIGSTOP)
    with brief_lock.exclusive(timeout_seconds=60):
        holder.send_signal(signal.SIGCONT)
        answers, _ = holder.communicate("go on\n", timeout=60)

        assert answers.split() == ["LeaseLost", "False"]
        assert len(brief_lock.snapshot().holders) == 1


def test_a_holder_cut_off_from_redis_stops_by_its_own_clock(own_redis_server: RedisServer) -> None:
    """Without an answer from anybody, the check raises before the lease lapses at the server."""
    with proxy_to(own_redis_server.port) as proxy, own_redis_server.client() as observer:
        client = redis.Redis(host="127.0.0.1", port=proxy.port, socket_timeout=0.1, retry=None)
        lock = ReadWriteLock(client, NAME, lease_seconds=2.0)
        with client, lock.shared() as lease:
            proxy.drops_replies = True
            proxy.refuses = True
            proxy.cut()

            wait_until(lambda: _is_lost(lease), "the loss", seconds=20, poll_seconds=0.001)

            view = ReadWriteLock(observer, NAME).snapshot()
            assert [holder.owner for holder in view.holders] == [lease.owner]


def test_a_forked_child_does_not_hold_its_parents_lease(lock: ReadWriteLock) -> None:
    """Nor does it release it: a fork inside the block leaves the block to the parent."""
    lease = lock.acquire(LockMode.EXCLUSIVE)

    assert _in_child(lease.check) == "LeaseLost"
    assert _in_child(lease.release) == "False"

    lease.check()
    assert [holder.owner for holder in lock.snapshot().holders] == [lease.owner]
    assert lease.release()


def test_a_forked_child_can_lock_and_renews_for_itself(brief_lock: ReadWriteLock) -> None:
    """Celery forks its children from a process that may have used the lock, its renewer running."""

    def outlive_a_lease() -> bool:
        with brief_lock.shared() as lease:
            started_at = elapsed()
            wait_until(lambda: elapsed() > started_at + 1.5, "time")
            lease.check()
            return lease.owner.split(":")[1] == str(os.getpid())

    with brief_lock.shared() as lease:
        assert _in_child(outlive_a_lease) == "True"
        lease.check()
