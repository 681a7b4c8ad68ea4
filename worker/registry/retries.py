# SPDX-License-Identifier: Apache-2.0
"""Whether a failed request is tried again inside one task, and after how long.

A short trouble is sat out here. A registry that asks for more patience than that gets it from the task layer, which
frees the worker meanwhile: the error then carries the registry's Retry-After.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

from worker.errors import RegistryUnavailable

T = TypeVar("T")

MAX_RETRY_AFTER_SECONDS: Final = 3600.0
"""More than this is taken for this: a registry cannot put a task off for ever."""

_REQUEST_TIMEOUT, _TOO_EARLY, _TOO_MANY_REQUESTS, _SERVER_ERROR = 408, 425, 429, 500


def is_transient(status: int) -> bool:
    """Tell whether the same request may be answered otherwise later."""
    return status in {_REQUEST_TIMEOUT, _TOO_EARLY, _TOO_MANY_REQUESTS} or status >= _SERVER_ERROR


def retry_after_seconds(header: str | None, *, now: datetime | None = None) -> float | None:
    """Read a Retry-After header, in seconds or as a date (RFC 9110, section 10.2.3); None if there is no usable one."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text)
    else:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and after how long.

    Attributes:
        attempts: Tries in all.
        base_seconds: First delay; doubled each time.
        max_delay_seconds: Longest delay, and longest Retry-After that is waited for here.
        sleep: Waits.
    """

    attempts: int
    base_seconds: float = 0.5
    max_delay_seconds: float = 10.0
    sleep: Callable[[float], None] = time.sleep

    def delay_seconds(self, failures: int, *, retry_after: float | None, jitter: float) -> float | None:
        """Return how long to wait after so many `failures`, or None to give up.

        Args:
            failures: 1 or more, in a row.
            retry_after: What the registry asked for, in seconds.
            jitter: 0 to 1; spreads clients that failed together over half of the delay.
        """
        if failures >= self.attempts:
            return None
        if retry_after is not None:
            return retry_after if retry_after <= self.max_delay_seconds else None
        longest = min(self.base_seconds * 2.0 ** (failures - 1), self.max_delay_seconds)
        return longest * (1 + jitter) / 2

    def pause(self, failures: int, error: RegistryUnavailable) -> None:
        """Wait before the next try, or raise `error` if there shall be none."""
        delay = self.delay_seconds(failures, retry_after=error.retry_after_seconds, jitter=random.random())  # noqa: S311
        if delay is None:
            raise error
        self.sleep(delay)

    def run(self, operation: Callable[[], T]) -> T:
        """Return what `operation` returns, tried again while it raises `RegistryUnavailable`."""
        failures = 0
        while True:
            try:
                return operation()
            except RegistryUnavailable as error:
                failures += 1
                self.pause(failures, error)
