# SPDX-License-Identifier: Apache-2.0
"""What a starting worker takes for left over depends on the workers that are up, and on what is left of dead ones."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.presence import starting
from worker.paths import WorkPaths

_WORKER = """
import os, sys, time
from pathlib import Path
from tasks.presence import starting
from worker.paths import WorkPaths

with starting(WorkPaths(Path(sys.argv[1]))) as is_alone:
    pass
if sys.argv[2] == "forks" and (child := os.fork()):
    print(child, flush=True)
    os._exit(0)
if sys.argv[2] == "stays":
    print(is_alone, flush=True)
time.sleep(60)
"""


def _worker(directory: Path, what: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _WORKER, str(directory), what], stdout=subprocess.PIPE, text=True)


def _is_alone(directory: Path) -> bool:
    """Ask in a process that ends at once."""
    text = _WORKER.replace("time.sleep(60)", "")
    command = [sys.executable, "-c", text, str(directory), "stays"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "True"


def test_the_first_worker_is_alone_the_second_is_not(tmp_path: Path) -> None:
    """Until the first has ended, also by SIGKILL."""
    with _worker(tmp_path, "stays") as first:
        assert first.stdout is not None
        assert first.stdout.readline().strip() == "True"
        while_first_is_up = _is_alone(tmp_path)
        first.kill()

    assert not while_first_is_up
    assert _is_alone(tmp_path)


def test_a_child_of_a_dead_worker_is_still_at_work(tmp_path: Path) -> None:
    """The pool's processes may outlive the worker that forked them."""
    with _worker(tmp_path, "forks") as first:
        assert first.stdout is not None
        child = int(first.stdout.readline())
    try:
        assert not _is_alone(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)
    while not _is_alone(tmp_path):
        time.sleep(0.01)


def test_a_start_that_fails_leaves_the_next_one_alone(tmp_path: Path) -> None:
    """It never was up."""
    with pytest.raises(SystemExit), starting(WorkPaths(tmp_path)):
        raise SystemExit("cannot start")

    assert _is_alone(tmp_path)
