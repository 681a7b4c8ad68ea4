# SPDX-License-Identifier: Apache-2.0
"""Locks over Redis that one could take instead of ours: mutexes, and the read-write locks of PyPI.

Those from PyPI are in the optional dependencies `bench`.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, Protocol

import redis
from redis.lock import Lock

from worker.lock import Lease, LockMode, ReadWriteLock

LEASE_SECONDS = 30.0
# And why.
NOT_INSTALLABLE = {"redishilok": "its last version wants a redis-py before 6"}


class Handle(Protocol):
    """One party to a lock; it can take the lock again after it has given it back."""

    def acquire(self) -> Any:
        """Wait for ever."""

    def release(self) -> Any:
        """Give back."""


@dataclass(frozen=True, kw_only=True)
class LockPeer:
    """One implementation.

    Attributes:
        name: As it stands in tables.
        module: Which must be there.
        modes: Those it has; a mutex is always exclusive.
        open: Makes a party to the lock of that name.
    """

    name: str
    module: str
    modes: Sequence[LockMode]
    open: Callable[[redis.Redis, str, LockMode], Handle]

    @property
    def is_read_write(self) -> bool:
        """Whether it can be shared."""
        return LockMode.SHARED in self.modes

    def missing(self) -> str | None:
        """Return why it cannot be measured here."""
        return None if find_spec(self.module) else "not installed; pip install --editable '.[bench]'"


class _Ours:
    def __init__(self, client: redis.Redis, name: str, mode: LockMode) -> None:
        self._lock = _our_lock(client, name)
        self._mode = mode
        self._lease: Lease | None = None

    def acquire(self) -> None:
        self._lease = self._lock.acquire(self._mode)

    def release(self) -> None:
        assert self._lease is not None
        assert self._lease.release()


@cache
def _our_lock(client: redis.Redis, name: str) -> ReadWriteLock:
    """Return one object for all parties of a process, as its users do."""
    return ReadWriteLock(client, name, lease_seconds=LEASE_SECONDS, token_floor=lambda: 0)


class _RedisRwLock:
    """redisrwlock knows its parties by what it calls a process id."""

    def __init__(self, client: redis.Redis, name: str, mode: LockMode) -> None:
        import redisrwlock  # noqa: PLC0415 - may be missing

        self._peer = redisrwlock
        self._client = redisrwlock.RwlockClient(redis=client, pid=secrets.token_hex(8))
        self._name = name
        self._mode = "R" if mode is LockMode.SHARED else "W"
        self._held: Any = None

    def acquire(self) -> None:
        self._held = self._client.lock(self._name, self._mode, timeout=self._peer.Rwlock.FOREVER)
        assert self._held.status == self._peer.Rwlock.OK

    def release(self) -> None:
        assert self._client.unlock(self._held)


def _open_redis_py(client: redis.Redis, name: str, _mode: LockMode) -> Handle:
    return Lock(client, name, timeout=LEASE_SECONDS)


def _open_python_redis_lock(client: redis.Redis, name: str, _mode: LockMode) -> Handle:
    import redis_lock  # noqa: PLC0415 - may be missing

    handle: Handle = redis_lock.Lock(client, name, expire=int(LEASE_SECONDS))
    return handle


def _open_python_redis_lock_renewed(client: redis.Redis, name: str, _mode: LockMode) -> Handle:
    import redis_lock  # noqa: PLC0415 - may be missing

    handle: Handle = redis_lock.Lock(client, name, expire=int(LEASE_SECONDS), auto_renewal=True)
    return handle


def _open_redis_rw_lock(client: redis.Redis, name: str, mode: LockMode) -> Handle:
    import redis_rw_lock  # noqa: PLC0415 - may be missing

    letter = "R" if mode is LockMode.SHARED else "W"
    handle: Handle = redis_rw_lock.RWLock(client, name, letter, expire=int(LEASE_SECONDS))
    return handle


_MUTEX = (LockMode.EXCLUSIVE,)
OURS = LockPeer(name="ours", module="worker.lock", modes=tuple(LockMode), open=_Ours)
PEERS = (
    OURS,
    LockPeer(name="redis-py Lock", module="redis.lock", modes=_MUTEX, open=_open_redis_py),
    LockPeer(name="python-redis-lock", module="redis_lock", modes=_MUTEX, open=_open_python_redis_lock),
    LockPeer(
        name="python-redis-lock, renewed", module="redis_lock", modes=_MUTEX, open=_open_python_redis_lock_renewed
    ),
    LockPeer(name="redis-rw-lock", module="redis_rw_lock", modes=tuple(LockMode), open=_open_redis_rw_lock),
    LockPeer(name="redisrwlock", module="redisrwlock", modes=tuple(LockMode), open=_RedisRwLock),
)
