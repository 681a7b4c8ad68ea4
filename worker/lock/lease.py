# SPDX-License-Identifier: Apache-2.0
"""`Lease`: the right to act under a lock, for as long as it can be proven."""

import logging
import os
import time

from worker.errors import LeaseLost, StateUnavailable
from worker.lock.mode import LockMode
from worker.lock.scripts import Answer, LockScripts

_log = logging.getLogger(__name__)

# Of each lease: what clocks may drift apart in its course, and what passes between a check and the act it permits.
_MARGIN = 0.1


def elapsed() -> float:
    """Seconds of a clock that never steps and, unlike `time.monotonic`, goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """A lock held by one process, renewed in the background until it is released or dropped.

    The holder keeps its own deadline: the server began to count after the request was *sent*, so counting from there
    the holder always stops first.

    Args:
        answer: The server's grant.
        sent_at: `elapsed()` before the request was sent.

    Attributes:
        owner: Names this acquisition; never used again.
        token: Fencing token. Grants that exclude each other have different ones, later greater; shared grants without
            an exclusive one between them have the same.
        mode: How the lock is held.
    """

    def __init__(self, scripts: LockScripts, owner: str, mode: LockMode, *, answer: Answer, sent_at: float) -> None:
        self.owner = owner
        self.mode = mode
        self.token = answer.token
        self.scripts = scripts
        self._pid = os.getpid()
        self._granted_at = elapsed()
        self._loss: str | None = None
        self.renewed(sent_at=sent_at, seconds=answer.seconds)

    def check(self) -> None:
        """Return if the lock is certainly held; call it before each step that must not happen otherwise.

        Raises:
            LeaseLost: It was released, lapsed or forgotten, or its renewal is overdue, or it is another process's.
                Once raised, always raised.
        """
        if self._pid != os.getpid():
            raise LeaseLost(lock=self.scripts.name, owner=self.owner, reason=f"it is held by process {self._pid}")
        if self._loss is None and self.remaining_seconds <= 0:
            self.lose("it was not renewed in time")
        if self._loss is not None:
            raise LeaseLost(lock=self.scripts.name, owner=self.owner, reason=self._loss)

    @property
    def remaining_seconds(self) -> float:
        """For how long the lease is proven without another renewal; negative if it is not."""
        return self._deadline - elapsed()

    @property
    def age_seconds(self) -> float:
        """Seconds since the grant arrived, whether or not the lease is over by now."""
        return elapsed() - self._granted_at

    @property
    def is_over(self) -> bool:
        """Whether it was released or found lost; it never comes back."""
        return self._loss is not None

    def release(self) -> bool:
        """Give the lock back and wake whoever is next.

        Effect: afterwards the lease is over, also when Redis cannot be told: then it lapses there by itself. Safe to
        call again, also in a forked child, where it does nothing.

        Returns:
            Whether the lock was held up to now, as far as Redis can say.
        """
        if self._pid != os.getpid() or self._loss == "it was released":
            return False
        was_lost = self.is_over
        self.lose("it was released")
        try:
            return self.scripts.release(self.owner) and not was_lost
        except StateUnavailable as error:
            _log.warning("lease %s on lock %s is left to lapse: %s", self.owner, self.scripts.name, error)
            return False

    def renewed(self, *, sent_at: float, seconds: float) -> None:
        """Move the deadline to what a request sent at `sent_at` was promised."""
        self._deadline = sent_at + seconds - _MARGIN * self.scripts.lease_seconds

    def lose(self, reason: str) -> None:
        """End the lease for its holder."""
        self._loss = reason
