# SPDX-License-Identifier: Apache-2.0
"""The verbs under fire, for as long as CI has patience, and the checks that judge it."""

import os
from pathlib import Path

import pytest

from tests.integration.chaos.verbs import REDIS_FAULTS, run

pytestmark = [pytest.mark.root, pytest.mark.redis]

SEED = int(os.environ.get("CHAOS_SEED", "1"))
SECONDS = float(os.environ.get("CHAOS_SHORT_SECONDS", "20"))


@pytest.mark.timeout(SECONDS + 180)
def test_no_rootfs_that_was_answered_ever_lacks_anything(tmp_path: Path) -> None:
    """Workers killed and stopped, Redis emptied and killed: trees whole throughout, stores exact in the end."""
    print(f"seed {SEED}, to be set by CHAOS_SEED")

    ledger = run(tmp_path, seconds=SECONDS, seed=SEED)

    assert ledger.violations == []
    assert ledger.answers["provision", "done"] > 20
    assert ledger.answers["destroy", "done"] > 10
    assert ledger.answers["prune", "done"] > 2
    assert ledger.checked > 20
    assert ledger.faults["workers killed"] > 0
    assert ledger.faults["workers paused"] > 0
    assert all(ledger.faults[fault] for fault in REDIS_FAULTS)
