# SPDX-License-Identifier: Apache-2.0
"""The queue under fire, for as long as CI has patience."""

import os
from pathlib import Path

import pytest

from tests.integration.chaos.queue import run_storm, violations
from tests.integration.chaos.queue_cases import frozen_while_idle
from tests.integration.chaos.queue_fleet import OURS, site

pytestmark = pytest.mark.redis

SEED = int(os.environ.get("CHAOS_SEED", "1"))
SECONDS = float(os.environ.get("CHAOS_SHORT_SECONDS", "10"))


@pytest.mark.timeout(SECONDS + 240)
def test_no_task_is_lost_and_none_runs_twice_without_a_reason(tmp_path: Path) -> None:
    """Workers killed, stopped, told to end, cut off, Redis killed: everything published is done in the end."""
    print(f"seed {SEED}, to be set by CHAOS_SEED")

    outcome = run_storm(OURS, tmp_path / "storm", seconds=SECONDS, most=10**9, seed=SEED, report=print)

    assert violations(outcome) == []
    assert outcome.verdict.published > 50
    assert outcome.faults.total() > 2


def test_a_task_sent_to_a_worker_that_stands_still_survives_its_death(tmp_path: Path) -> None:
    """Stopped while it waits, then killed: what Redis had handed to it by then is run by another."""
    with site(OURS, tmp_path / "site") as place:
        (finding,) = frozen_while_idle(place, rounds=1)

    assert finding.is_good, finding.seen
