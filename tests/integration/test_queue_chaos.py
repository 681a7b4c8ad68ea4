# SPDX-License-Identifier: Apache-2.0
"""The queue under fire, for as long as CI has patience."""

import os
from pathlib import Path

import pytest

from tests.integration.chaos.queue import run_storm, violations
from tests.integration.chaos.queue_cases import redis_paused
from tests.integration.chaos.queue_effects import run_effects
from tests.integration.chaos.queue_finding import Case
from tests.integration.chaos.queue_fleet import OURS, site

pytestmark = pytest.mark.redis

SEED = int(os.environ.get("CHAOS_SEED", "1"))
SECONDS = float(os.environ.get("CHAOS_QUEUE_SHORT_SECONDS", "8"))


@pytest.mark.parametrize("case", [redis_paused], ids=lambda case: case.__name__)
def test_harm_at_the_worst_moment_does_none(case: Case, tmp_path: Path) -> None:
    """What chance hits too seldom to be seen in a short storm."""
    with site(OURS, tmp_path / "site") as place:
        findings = list(case(place))

    assert [each for each in findings if not each.is_good] == []


@pytest.mark.timeout(SECONDS + 240)
def test_no_task_is_lost_and_none_runs_twice_without_a_reason(tmp_path: Path) -> None:
    """Workers killed, stopped, told to end, cut off, Redis killed: everything published is done in the end."""
    print(f"seed {SEED}, to be set by CHAOS_SEED")

    outcome = run_storm(OURS, tmp_path / "storm", seconds=SECONDS, seed=SEED, report=print)

    assert violations(outcome) == []
    assert outcome.verdict.published > 50
    assert outcome.faults.total() > 2


@pytest.mark.root
@pytest.mark.timeout(SECONDS + 240)
def test_whatever_runs_twice_has_the_effect_of_once(tmp_path: Path) -> None:
    """Provisions and destroys through the same storm: in the end there is what was answered, once, and nothing else."""
    print(f"seed {SEED}, to be set by CHAOS_SEED")

    outcome, orders, wrong = run_effects(tmp_path / "effects", seconds=SECONDS, seed=SEED, report=print)

    assert [*violations(outcome), *wrong] == []
    assert len(orders.provisions) > 5
    assert outcome.faults.total() > 2
