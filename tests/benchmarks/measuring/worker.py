# SPDX-License-Identifier: Apache-2.0
"""What a measured worker has besides its own tasks: `celery worker --include tests.benchmarks.measuring.worker`.

The task `benchmarks.noop`, the least a task can cost. When `BENCHMARK_PROFILE` names a directory, every process of the
pool runs its tasks under cProfile, and `benchmarks.take_profiles` writes what it saw since the last time.
"""

import cProfile
import os
from pathlib import Path
from typing import Any

from celery.signals import task_postrun, task_prerun

from worker.celery import app

NOOP = "benchmarks.noop"
TAKE_PROFILES = "benchmarks.take_profiles"
PROFILE_VARIABLE = "BENCHMARK_PROFILE"

_profiles: dict[str, cProfile.Profile] = {}


@app.task(name=NOOP)  # type: ignore[untyped-decorator]
def noop(**_: object) -> bool:
    """Do nothing."""
    return True


@app.task(name=TAKE_PROFILES)  # type: ignore[untyped-decorator]
def take_profiles() -> None:
    """Write one file per task's name, for `pstats`, and begin anew."""
    for name, profile in _profiles.items():
        profile.dump_stats(Path(os.environ[PROFILE_VARIABLE]) / f"{name}.prof")
    _profiles.clear()


def _start(task: Any, **_: object) -> None:
    if task.name != TAKE_PROFILES:
        _profiles.setdefault(task.name, cProfile.Profile()).enable()


def _stop(task: Any, **_: object) -> None:
    if task.name != TAKE_PROFILES:
        _profiles[task.name].disable()


if PROFILE_VARIABLE in os.environ:
    task_prerun.connect(_start)
    task_postrun.connect(_stop)
