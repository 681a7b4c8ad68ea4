# SPDX-License-Identifier: Apache-2.0
"""Tasks that do next to nothing, for whatever worker includes this module.

`BENCHMARK_TALLY` names a file that grows by a byte with each task of the kind that nobody waits for: so one sees that
all are done without asking Redis anything.
"""

import os
from functools import lru_cache
from pathlib import Path

from celery import shared_task

TALLY_VARIABLE = "BENCHMARK_TALLY"
ANSWERED = "benchmarks.answered"
TALLIED = "benchmarks.tallied"


@shared_task(name=ANSWERED)  # type: ignore[untyped-decorator]
def answered() -> bool:
    """Answer, and nothing else."""
    return True


@shared_task(name=TALLIED, ignore_result=True)  # type: ignore[untyped-decorator]
def tallied() -> None:
    """Add a byte to the tally."""
    os.write(_tally(Path(os.environ[TALLY_VARIABLE])), b".")


@lru_cache(maxsize=1)
def _tally(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
