# SPDX-License-Identifier: Apache-2.0
"""Connections are added one by one and have to prove themselves."""

from collections.abc import Iterable

import pytest

from worker.registry.pacing import WINDOW_SECONDS, Measure, Meter, Plan

STARVING, BUSY = 0.9, 0.2


def connections(measures: Iterable[tuple[float, float]], *, most: int = 4) -> list[int]:
    """Return the count of connections after each window of (bytes per second, starved share)."""
    plan, counts = Plan(), []
    for rate, share in measures:
        plan = plan.revised(Measure(bytes_per_second=rate, starved_share=share), most=most)
        counts.append(plan.connections)
    return counts


@pytest.mark.parametrize(
    ("measures", "counts"),
    [
        ([(10, BUSY), (10, BUSY), (10, BUSY)], [1, 1, 1]),
        ([(10, STARVING), (20, STARVING), (30, STARVING), (40, STARVING)], [2, 3, 4, 4]),
        ([(10, STARVING), (10.5, STARVING), (30, STARVING)], [2, 1, 1]),
        ([(10, STARVING), (20, STARVING), (21, STARVING), (9, STARVING)], [2, 3, 2, 2]),
        ([(10, STARVING), (15, BUSY), (5, BUSY)], [2, 2, 2]),
        ([(10, BUSY), (4, STARVING), (8, STARVING)], [1, 2, 3]),
    ],
    ids=["reader is slow", "each one helps", "link is full", "third is too many", "second is enough", "line gets slow"],
)
def test_connections_follow_the_reader_and_the_line(measures: list[tuple[float, float]], counts: list[int]) -> None:
    """More only for a reader that waits, and only as long as more brings more."""
    assert connections(measures) == counts


def test_a_bound_of_one_is_one() -> None:
    """However the reader starves."""
    assert connections([(10, STARVING)] * 3, most=1) == [1, 1, 1]


def test_a_meter_tells_rate_and_waiting_of_each_window() -> None:
    """Nothing before the window is over, and each window for itself."""
    now = [0.0]
    meter = Meter(clock=lambda: now[0])

    meter.add(500)
    with meter.waiting():
        now[0] += WINDOW_SECONDS * 0.9
    early = meter.measure()
    now[0] += WINDOW_SECONDS * 0.9
    first = meter.measure()
    now[0] += 2 * WINDOW_SECONDS
    second = meter.measure()

    assert early is None
    assert first is not None
    assert first.bytes_per_second == pytest.approx(500 / (1.8 * WINDOW_SECONDS))
    assert first.starved_share == pytest.approx(0.5)
    assert second == Measure(bytes_per_second=0.0, starved_share=0.0)
