# SPDX-License-Identifier: Apache-2.0
"""Who holds a lock and who waits for it, for people and metrics."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from worker.lock.mode import LockMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """One holder or one waiter.

    Attributes:
        owner: `<host>:<pid>:<random>`; names a lease for `shorten`.
        mode: What it holds or asks for.
        age_seconds: For how long it has held or waited.
        remaining_seconds: After this its lease lapses, or its place in the queue, unless it shows that it lives.
    """

    owner: str
    mode: LockMode
    age_seconds: float
    remaining_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LockView:
    """A lock at one moment.

    Attributes:
        token: The highest that was granted; 0 if none ever was.
        quarantine_seconds: No exclusive grant for this long, because Redis may have forgotten a holder.
        holders: The exclusive one, or all shared ones.
        waiters: In order of arrival.
    """

    token: int
    quarantine_seconds: float
    holders: tuple[Party, ...]
    waiters: tuple[Party, ...]

    @classmethod
    def parse(cls, answer: Sequence[Any]) -> Self:
        """Read the answer of `lock_view.lua`, decoded or not."""
        token, quarantine_ms, holders, waiters = answer
        return cls(
            token=int(token),
            quarantine_seconds=int(quarantine_ms) / 1000,
            holders=tuple(_parties(holders)),
            waiters=tuple(_parties(waiters)),
        )


def text(value: str | bytes) -> str:
    """Return what Redis answered, whether or not its client decodes answers."""
    return value.decode() if isinstance(value, bytes) else value


def _parties(row: Sequence[Any]) -> Iterator[Party]:
    for owner, mode, age_ms, remaining_ms in zip(row[::4], row[1::4], row[2::4], row[3::4], strict=True):
        yield Party(
            owner=text(owner),
            mode=LockMode(text(mode)),
            age_seconds=int(age_ms) / 1000,
            remaining_seconds=int(remaining_ms) / 1000,
        )
