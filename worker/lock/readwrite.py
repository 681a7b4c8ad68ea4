# SPDX-License-Identifier: Apache-2.0
"""`ReadWriteLock`: what callers use."""

import math
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import redis

from worker.errors import InvalidArgument, LeaseLost, LockTimeout, StateUnavailable
from worker.lock.doorbell import wait_for_bell
from worker.lock.lease import Lease, elapsed
from worker.lock.mode import LockMode
from worker.lock.renewer import process_renewer
from worker.lock.scripts import Answer, LockScripts, Outcome
from worker.lock.view import LockView


def _nothing() -> None:
    """Nobody wants to know of a wait."""


class ReadWriteLock:
    """A read-write lock of a cluster. May be shared by threads and survives forks; not reentrant.

    Args:
        client: Redis 7.0 or Valkey, evicting nothing. Its retries and timeouts apply, except while waiting.
        name: Begins every key of the lock. In a Redis Cluster it holds a hash tag.
        lease_seconds: How long a dead holder blocks others; renewed at one third. All users of a name use the same.
        token_floor: Returns the highest token the guarded resource has seen, 0 if none; called at each acquire. Without
            it tokens still grow by the server's clock, and a lock that is new to Redis starts in quarantine.
        holder: Names this process in views; the host name by default.

    Raises:
        InvalidArgument: `lease_seconds` is not positive.
    """

    def __init__(
        self,
        client: redis.Redis,
        name: str,
        *,
        lease_seconds: float = 30.0,
        token_floor: Callable[[], int] | None = None,
        holder: str | None = None,
    ) -> None:
        if lease_seconds <= 0:
            raise InvalidArgument(argument="lease_seconds", value=str(lease_seconds), reason="must be positive")
        self.name = name
        self._client = client
        self._scripts = LockScripts(client, name, lease_seconds=lease_seconds)
        self._token_floor = token_floor
        self._holder = holder or socket.gethostname()

    def acquire(
        self, mode: LockMode, *, timeout_seconds: float | None = None, on_wait: Callable[[], None] = _nothing
    ) -> Lease:
        """Return a lease once it is this caller's turn.

        Args:
            mode: Shared or exclusive.
            timeout_seconds: Give up after this long; 0 to ask once; None to wait for ever.
            on_wait: Called, maybe repeatedly, when it is not granted at once.

        Raises:
            LockTimeout: Not granted in time; the place in the queue is given up. A retry may help.
            LeaseLost: Somebody released this owner while it waited.
            StateUnavailable: Redis cannot be reached, or refuses.

        Cost: one round trip if nothing is in the way.
        """
        owner = f"{self._holder}:{os.getpid()}:{secrets.token_hex(8)}"
        try:
            return self._wait_for_turn(owner, mode, timeout_seconds=timeout_seconds, on_wait=on_wait)
        except BaseException:
            # A signal's exception may come after the grant: give back whatever there is.
            with suppress(StateUnavailable):
                self._scripts.release(owner)
            raise

    @contextmanager
    def shared(
        self, *, timeout_seconds: float | None = None, on_wait: Callable[[], None] = _nothing
    ) -> Iterator[Lease]:
        """Hold the lock beside other shared holders. Raises as `acquire` does."""
        lease = self.acquire(LockMode.SHARED, timeout_seconds=timeout_seconds, on_wait=on_wait)
        try:
            yield lease
        finally:
            lease.release()

    @contextmanager
    def exclusive(self, *, timeout_seconds: float | None = None) -> Iterator[Lease]:
        """Hold the lock alone. Raises as `acquire` does."""
        lease = self.acquire(LockMode.EXCLUSIVE, timeout_seconds=timeout_seconds)
        try:
            yield lease
        finally:
            lease.release()

    def snapshot(self) -> LockView:
        """Show who holds and who waits. Cost: one round trip, proportional to holders and waiters.

        Raises:
            StateUnavailable: Redis cannot be reached, or refuses.
        """
        return self._scripts.view()

    def shorten(self, owner: str, seconds: float) -> float | None:
        """Let a holder's lease run out `seconds` from now, for an operator facing a stuck one.

        The time the holder was promised already, at most one lease, is not taken from it: it may be acting on it.

        Returns:
            The seconds after which the lease is over at the latest; None if `owner` holds none.

        Raises:
            StateUnavailable: Redis cannot be reached, or refuses.
        """
        return self._scripts.shorten(owner, seconds)

    def _wait_for_turn(
        self, owner: str, mode: LockMode, *, timeout_seconds: float | None, on_wait: Callable[[], None]
    ) -> Lease:
        give_up_at = elapsed() + (math.inf if timeout_seconds is None else timeout_seconds)
        while True:
            sent_at = elapsed()
            answer = self._ask(owner, mode)
            if answer.outcome is Outcome.GRANTED:
                lease = Lease(self._scripts, owner, mode, answer=answer, sent_at=sent_at)
                process_renewer().add(lease)
                return lease
            if answer.outcome is Outcome.RELEASED:
                raise LeaseLost(lock=self.name, owner=owner, reason="its place in the queue was withdrawn")
            patience_seconds = give_up_at - elapsed()
            if patience_seconds <= 0:
                raise LockTimeout(lock=self.name, mode=mode.value, seconds=timeout_seconds)
            on_wait()
            seconds = min(answer.seconds, patience_seconds)
            wait_for_bell(self._client, f"{self.name}:bell:{owner}", seconds=seconds)

    def _ask(self, owner: str, mode: LockMode) -> Answer:
        floor = None if self._token_floor is None else self._token_floor()
        return self._scripts.acquire(owner, mode, floor=floor)
