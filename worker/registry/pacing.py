# SPDX-License-Identifier: Apache-2.0
"""How many connections a blob deserves: more only while its reader starves and each one brought something.

A reader that is busy inflating gains nothing from a second connection, and a link that is full gives nothing to it. So
one connection is measured first, and each further one has to prove itself or goes again::

    reader waits    throughput since the last one was added      then
    seldom          any                                          stay
    often           (none was added yet)                         add one
    often           grew                                         add one, up to the most
    often           did not grow                                 take it back, and leave it at that
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

WINDOW_SECONDS: Final = 0.5
"""How long is measured before each decision."""

_STARVING_SHARE = 0.5
# A fair share of an unlimited link would be 1.5 for the third connection and less for more of them.
_MIN_GROWTH = 1.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One window of a transfer.

    Attributes:
        bytes_per_second: What arrived.
        starved_share: The part of the time, 0 to 1, that the reader waited for it.
    """

    bytes_per_second: float
    starved_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many connections to use, and what is known of that.

    Attributes:
        connections: At least 1.
        rate_before: Bytes per second before the last one was added, as long as it has to prove itself.
        is_settled: No more is tried.
    """

    connections: int = 1
    rate_before: float | None = None
    is_settled: bool = False

    def revised(self, measure: Measure, *, most: int) -> "Plan":
        """Return the plan after one more window."""
        rate = measure.bytes_per_second
        if self.is_settled or measure.starved_share < _STARVING_SHARE:
            return Plan(connections=self.connections, is_settled=self.is_settled)
        if self.rate_before is not None and rate < self.rate_before * _MIN_GROWTH:
            return Plan(connections=self.connections - 1, is_settled=True)
        if self.connections >= most:
            return Plan(connections=self.connections, is_settled=True)
        return Plan(connections=self.connections + 1, rate_before=rate)


class Meter:
    """Measures a transfer in windows; bytes may arrive in other threads than the reader's.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.restart()

    def restart(self) -> None:
        """Begin a new window."""
        with self._lock:
            self._started_at = self._clock()
            self._received_bytes = 0
            self._waited_seconds = 0.0

    def add(self, received_bytes: int) -> None:
        """Count what arrived."""
        with self._lock:
            self._received_bytes += received_bytes

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the body's time as the reader's waiting."""
        before = self._clock()
        try:
            yield
        finally:
            with self._lock:
                self._waited_seconds += self._clock() - before

    def measure(self) -> Measure | None:
        """Return what the window showed and begin a new one; None as long as it is too short."""
        elapsed = self._clock() - self._started_at
        if elapsed < WINDOW_SECONDS:
            return None
        measure = Measure(
            bytes_per_second=self._received_bytes / elapsed, starved_share=min(self._waited_seconds / elapsed, 1.0)
        )
        self.restart()
        return measure
