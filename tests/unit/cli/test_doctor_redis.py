# SPDX-License-Identifier: Apache-2.0
"""Verdicts on a server's own words, and on clocks."""

import pytest

from worker.cli.doctor_redis import check_clock, check_eviction, check_persistence


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        ({"maxmemory_policy": "noeviction", "maxmemory": 1}, "good"),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 1}, "wrong"),
        ({"maxmemory_policy": "volatile-ttl", "maxmemory": 0}, "note"),
        ({}, "note"),
    ],
)
def test_a_server_that_would_drop_locks_is_wrong(facts: dict[str, object], verdict: str) -> None:
    """Only one that has a limit to reach."""
    assert check_eviction(facts).verdict == verdict


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        ({"aof_enabled": 1}, "good"),
        ({"aof_enabled": 0}, "note"),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, "wrong"),
        ({"aof_enabled": 0, "rdb_last_bgsave_status": "err"}, "wrong"),
    ],
)
def test_a_server_that_cannot_write_is_wrong(facts: dict[str, object], verdict: str) -> None:
    """One that does not want to is not."""
    assert check_persistence(facts).verdict == verdict


@pytest.mark.parametrize(
    ("server", "verdict"),
    [(100.5, "good"), (99.5, "good"), (105.0, "note"), (95.0, "note"), (200.0, "wrong"), (0.0, "wrong")],
)
def test_clocks_may_differ_a_little(server: float, verdict: str) -> None:
    """What lies between question and answer is no difference."""
    assert check_clock(server, before=99.0, after=101.0).verdict == verdict
