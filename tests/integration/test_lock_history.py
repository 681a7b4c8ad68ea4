# SPDX-License-Identifier: Apache-2.0
"""The lock under fire, for as long as CI has patience, and the checker that judges it."""

from pathlib import Path

import pytest

from tests.integration.lock_history import LOSSES, History, Use, check, run_history
from tests.support.redis_server import Kind


def _use(owner: str, mode: str, start: float, end: float, *, token: int) -> Use:
    return Use(owner=owner, mode=mode, token=token, start=start, end=end)


@pytest.mark.redis
def test_nobody_meets_at_the_resource_whatever_happens_to_processes_and_redis(tmp_path: Path, redis_kind: Kind) -> None:
    """Killed, paused beyond their leases, cut off, their Redis flushed, restarted and set back: nobody overlaps."""
    history = run_history(tmp_path, kind=redis_kind, processes=6, seconds=25, seed=1)

    assert check(history) == [], history.ledger()
    assert len(history.entries) > 100
    assert {use.mode for use in history.entries} == {"shared", "exclusive"}
    assert all(history.faults[loss] for loss in LOSSES), history.ledger()


def test_the_checker_lets_readers_meet_each_other() -> None:
    """Shared users overlap and change places with writers."""
    reads = [_use("r1", "shared", 0, 2, token=7), _use("r2", "shared", 1, 3, token=7)]

    assert check(History(entries=[*reads, _use("w", "exclusive", 3, 4, token=8)])) == []


@pytest.mark.parametrize("mode", ["shared", "exclusive"])
def test_the_checker_sees_a_writer_beside_another(mode: str) -> None:
    """An overlap is found even if one user was there all the time."""
    entries = [
        _use("long", mode, 0, 10, token=7),
        _use("short", "exclusive", 1, 2, token=8),
        _use("later", "exclusive", 5, 6, token=9),
    ]

    assert [finding[:23] for finding in check(History(entries=entries))] == ["overlap at the resource"] * 2


def test_the_checker_sees_tokens_out_of_order() -> None:
    """An entry under a token older than a writer before it should have been refused."""
    entries = [_use("w", "exclusive", 0, 1, token=8), _use("r", "shared", 2, 3, token=7)]

    assert [finding.split(":")[0] for finding in check(History(entries=entries))] == ["token 7 after 8"]


def test_the_checker_excuses_a_forgotten_writer_before_a_reader_only() -> None:
    """After a loss a reader may be granted beside a writer that Redis forgot; a writer never."""
    forgotten = _use("w", "exclusive", 0, 5, token=7)
    reader, writer = _use("r", "shared", 3, 4, token=8), _use("x", "exclusive", 3, 4, token=8)

    assert check(History(leases=[forgotten, reader], losses=[(1.5, 2)])) == []
    assert check(History(leases=[forgotten, reader])) != []
    assert check(History(leases=[forgotten, writer], losses=[(1.5, 2)])) != []
