# SPDX-License-Identifier: Apache-2.0
"""Retries as data."""

from datetime import UTC, datetime

import pytest

from worker.errors import AccessDenied, RegistryUnavailable
from worker.registry.retries import MAX_RETRY_AFTER_SECONDS, RetryPolicy, is_transient, retry_after_seconds

NOW = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Wed, 01 May 2024 12:01:30 GMT", 90.0),
        ("Wed, 01 May 2024 12:01:30", 90.0),
        ("Wed, 01 May 2024 11:00:00 GMT", 0.0),
        ("99999999999999999999", MAX_RETRY_AFTER_SECONDS),
        pytest.param("9" * 400, MAX_RETRY_AFTER_SECONDS, id="more seconds than a float holds"),
        ("Wed, 01 May 2124 12:00:00 GMT", MAX_RETRY_AFTER_SECONDS),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", MAX_RETRY_AFTER_SECONDS),
        ("Wed, 01 May 2024 12:00:00 +99999999999999999999", None),
        ("-5", None),
        ("inf", None),
        ("nan", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("²", None),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str | None, seconds: float | None) -> None:
    """Seconds or a date, bounded; nonsense counts as nothing."""
    assert retry_after_seconds(header, now=NOW) == seconds


@pytest.mark.parametrize(
    ("status", "expected"),
    [(408, True), (429, True), (500, True), (503, True), (599, True), (400, False), (401, False), (404, False)],
)
def test_only_what_may_change_by_itself_is_transient(status: int, expected: bool) -> None:
    """A retry of the others gives the same answer."""
    assert is_transient(status) is expected


def test_delays_double_up_to_a_bound_and_spread_over_half_of_themselves() -> None:
    """Jitter 0 and 1 give the ends of the range."""
    policy = RetryPolicy(attempts=9, base_seconds=1.0, max_delay_seconds=5.0)

    shortest = [policy.delay_seconds(failures, retry_after=None, jitter=0) for failures in (1, 2, 3, 4)]
    longest = [policy.delay_seconds(failures, retry_after=None, jitter=1) for failures in (1, 2, 3, 4)]

    assert shortest == [0.5, 1.0, 2.0, 2.5]
    assert longest == [1.0, 2.0, 4.0, 5.0]


def test_a_short_retry_after_is_kept_and_a_long_one_is_left_to_the_task() -> None:
    """A worker must not sleep for minutes; the last try gives up whatever the registry asks for."""
    policy = RetryPolicy(attempts=3, max_delay_seconds=10.0)

    assert policy.delay_seconds(1, retry_after=10.0, jitter=0.5) == 10.0
    assert policy.delay_seconds(1, retry_after=0.0, jitter=0.5) == 0.0
    assert policy.delay_seconds(1, retry_after=10.5, jitter=0.5) is None
    assert policy.delay_seconds(3, retry_after=0.0, jitter=0.5) is None


def test_an_operation_is_tried_as_often_as_allowed() -> None:
    """The last error comes out, with a wait between every two tries."""
    waits: list[float] = []
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise RegistryUnavailable(registry="r", reason=f"try {len(calls)}")

    with pytest.raises(RegistryUnavailable, match="try 3"):
        RetryPolicy(attempts=3, sleep=waits.append).run(fail)
    assert len(waits) == 2


def test_a_permanent_error_is_not_tried_again() -> None:
    """It comes out at once."""
    waits: list[float] = []

    def fail() -> None:
        raise AccessDenied(image="i", reason="no")

    with pytest.raises(AccessDenied):
        RetryPolicy(attempts=3, sleep=waits.append).run(fail)
    assert waits == []
