# SPDX-License-Identifier: Apache-2.0
"""The lock under fire for long: `make chaos`. Prints the ledger of each run."""

import os
import time
from pathlib import Path

import pytest

from tests.integration.lock_history import check, run_history
from tests.support.redis_server import Kind

SECONDS = float(os.environ.get("CHAOS_SECONDS", "600"))


@pytest.mark.redis
@pytest.mark.timeout(SECONDS + 120)
def test_the_lock_holds_for_long(tmp_path: Path, redis_kind: Kind) -> None:
    """As the short version, with more processes, for CHAOS_SECONDS, from a seed that is new each time."""
    seed = time.time_ns()
    history = run_history(tmp_path, kind=redis_kind, processes=10, seconds=SECONDS, seed=seed)

    print(f"seed     {seed}\n{history.ledger()}")
    assert check(history) == []
