# SPDX-License-Identifier: Apache-2.0
"""Observations add up to what Prometheus reads."""

import threading

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.support.scraping import Page
from worker.metrics.tally import Tally
from worker.observer import Metric, Observation


def page_of(tally: Tally) -> Page:
    """Return what the tally shows."""
    registry = CollectorRegistry()
    registry.register(tally)
    return Page(generate_latest(registry).decode())


def test_what_is_known_is_shown_before_it_happens() -> None:
    """Else the first error would be no increase to Prometheus."""
    page = page_of(Tally())

    assert page.value("verbs_total", verb="destroy", outcome="transient") == 0
    assert page.value("errors_total", outcome="transient", error="LockTimeout") == 0
    assert page.value("errors_total", outcome="permanent", error="DigestMismatch") == 0
    assert page.value("prune_exclusive_seconds_count") == 0
    assert page.value("fetched_bytes_total") == 0


def test_counts_add_up_by_label() -> None:
    """Each set of label values is a series of its own."""
    tally = Tally()
    for backend in ("bind", "bind", "copy"):
        tally.add(Observation(Metric.REMOVE_ROOTFS_ERRORS, labels=(backend,)))
    tally.add(Observation(Metric.FETCHED_BYTES, 1000))
    tally.add(Observation(Metric.FETCHED_BYTES, 24))

    page = page_of(tally)

    assert page.value("remove_rootfs_errors_total", backend="bind") == 2
    assert page.value("remove_rootfs_errors_total", backend="copy") == 1
    assert page.value("fetched_bytes_total") == 1024


def test_a_duration_falls_into_every_bucket_from_its_own_on() -> None:
    """A bucket's bound belongs to it; what is longer than all is in the last."""
    tally = Tally()
    for seconds in (0.001, 0.3, 1000.0):
        tally.add(Observation(Metric.LOCK_HOLD_SECONDS, seconds, ("shared",)))

    page = page_of(tally)

    counts = {
        bound: page.value("lock_hold_seconds_bucket", mode="shared", le=bound)
        for bound in ("0.001", "0.25", "0.5", "60.0", "+Inf")
    }
    assert counts == {"0.001": 1, "0.25": 1, "0.5": 2, "60.0": 2, "+Inf": 3}
    assert page.value("lock_hold_seconds_count", mode="shared") == 3
    assert page.value("lock_hold_seconds_sum", mode="shared") == pytest.approx(1000.301)


def test_an_observation_with_other_labels_is_refused() -> None:
    """A mistake at a caller's must not become a series."""
    tally = Tally()

    with pytest.raises(ValueError, match="backend"):
        tally.add(Observation(Metric.REMOVE_ROOTFS_ERRORS))


def test_threads_lose_nothing() -> None:
    """All of a pool of threads count."""
    tally = Tally()

    def count() -> None:
        for _ in range(2000):
            tally.add(Observation(Metric.IMAGE_LOOKUPS, labels=("hit",)))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert page_of(tally).value("image_lookups_total", result="hit") == 8000
