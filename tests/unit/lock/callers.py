# SPDX-License-Identifier: Apache-2.0
"""Threads that take a lock, say so, and keep it until they are told."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from tests.support.ports import wait_until
from worker.lock import Lease, LockMode, ReadWriteLock


class Caller:
    """One thread asking for one lease.

    Attributes:
        lease: What it got.
        error: What was raised instead.
    """

    def __init__(self, lock: ReadWriteLock, mode: LockMode, *, timeout_seconds: float | None = None) -> None:
        self.lease: Lease | None = None
        self.error: Exception | None = None
        self._arguments = (lock, mode, timeout_seconds)
        self._answered = threading.Event()
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def holds(self) -> bool:
        """Whether it was granted the lock and not told to release it."""
        return self.lease is not None and not self._told.is_set()

    def start(self) -> Self:
        """Ask; return when the request is granted or stands in the queue."""
        lock = self._arguments[0]
        before = len(lock.snapshot().waiters)
        self._thread.start()
        wait_until(
            lambda: self._answered.is_set() or len(lock.snapshot().waiters) > before, "the caller's arrival", seconds=20
        )
        return self

    def granted(self) -> Lease:
        """Return its lease once it has one."""
        assert self._answered.wait(timeout=60), "the caller was not answered"
        assert self.lease is not None, self.error
        return self.lease

    def release(self) -> None:
        """Let it release and end, whether or not it was granted the lock."""
        self._told.set()
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        lock, mode, timeout_seconds = self._arguments
        try:
            self.lease = lock.acquire(mode, timeout_seconds=timeout_seconds)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        self._answered.set()
        self._told.wait(timeout=120)
        if self.lease is not None:
            self.lease.release()


@contextmanager
def callers(lock: ReadWriteLock, *modes: LockMode) -> Iterator[list[Caller]]:
    """Run one caller a mode, in this order of arrival; tell those that hold to release, round by round, at the end."""
    started = [Caller(lock, mode).start() for mode in modes]
    try:
        yield started
    finally:
        for caller in started:
            caller.granted()
            caller.release()
