# SPDX-License-Identifier: Apache-2.0
"""The lock's transitions as typed calls: one script and one round trip each."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import redis
from redis.commands.core import Script

from worker.lock.mode import LockMode
from worker.lock.view import LockView, text
from worker.lua import script
from worker.redis_errors import redis_errors


class Outcome(StrEnum):
    """What came of asking for a lease."""

    GRANTED = "granted"
    WAITING = "waiting"
    RELEASED = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to one acquire.

    Attributes:
        outcome: Whether the lease is held now.
        token: The fencing token, if it is.
        seconds: What the lease has left, if it is; else after how long to ask again at the latest.
    """

    outcome: Outcome
    token: int
    seconds: float


class LockScripts:
    """The scripts of one lock on one client. Every call may be repeated when its reply was lost.

    Args:
        client: Its pool makes new connections after a fork.
        name: The key that all others of the lock begin with.
        lease_seconds: Asked for at each acquire and each renewal.
    """

    def __init__(self, client: redis.Redis, name: str, *, lease_seconds: float) -> None:
        self.client = client
        self.name = name
        self.lease_seconds = lease_seconds
        self._lease_ms = max(1, round(lease_seconds * 1000))
        self._acquire, self._release, self._renew, self._shorten, self._view = (
            script(client, "allow_oom", "lock_server", "lock_common", f"lock_{transition}")
            for transition in ("acquire", "release", "renew", "shorten", "view")
        )

    def acquire(self, owner: str, mode: LockMode, *, floor: int | None) -> Answer:
        """Ask for a lease, or again for the one the owner has."""
        asked = (owner, mode.value, self._lease_ms, "" if floor is None else floor)
        outcome, token, ms = self._call(self._acquire, *asked)
        return Answer(outcome=Outcome(text(outcome)), token=int(token), seconds=int(ms) / 1000)

    def release(self, owner: str) -> bool:
        """Release, or leave the queue. Returns whether the lock was held until this call or the one it repeats."""
        return text(self._call(self._release, owner, self._lease_ms)) in {"released", "already"}

    def renew(self, leases: Sequence[tuple[LockMode, str]]) -> list[float]:
        """Renew many leases at once. Returns the seconds each has left; 0 for one that is lost."""
        arguments = [argument for mode, owner in leases for argument in (mode.value, owner)]
        return [int(ms) / 1000 for ms in self._call(self._renew, self._lease_ms, *arguments)]

    def shorten(self, owner: str, seconds: float) -> float | None:
        """Renew no further than `seconds` from now. Returns the seconds to the lease's end, or None if it has none."""
        ms = int(self._call(self._shorten, owner, max(0, round(seconds * 1000))))
        return None if ms < 0 else ms / 1000

    def view(self) -> LockView:
        """Show who holds and who waits."""
        return LockView.parse(self._call(self._view))

    def _call(self, transition: Script, *arguments: str | int) -> Any:
        with redis_errors():
            return transition(keys=[self.name], args=arguments)
