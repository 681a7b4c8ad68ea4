# SPDX-License-Identifier: Apache-2.0
"""Programs that are started and surely stopped."""

import os
import sys
from pathlib import Path

import pytest

from tests.support.ports import wait_until
from worker.child_process import ChildProcess

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
time.sleep(600)
"""
POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("good bye", flush=True), sys.exit(7)))
print("hello", flush=True)
time.sleep(600)
"""


def start(program: str, tmp_path: Path) -> ChildProcess:
    """Start a Python program and wait for its first line."""
    child = ChildProcess([sys.executable, "-c", program], log_path=tmp_path / "log")
    child.start()
    wait_until(lambda: bool(child.tail(1)), "the first line")
    return child


def test_a_polite_program_ends_in_its_own_way(tmp_path: Path) -> None:
    """It gets SIGTERM and the time to clean up."""
    child = start(POLITE, tmp_path)

    child.stop(patience_seconds=20)

    assert child.process.returncode == 7
    assert child.tail(2) == "hello\ngood bye"


def test_a_stubborn_program_is_killed_with_all_it_started(tmp_path: Path) -> None:
    """Nothing of its group is left."""
    child = start(STUBBORN, tmp_path)
    grandchild = int(child.tail(1).split()[1])

    child.stop(patience_seconds=0.1)

    assert not child.is_running
    wait_until(lambda: not is_running(grandchild), "the grandchild's end")


def is_running(pid: int) -> bool:
    """Tell whether a process runs; one that nobody reaped does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_it_has_a_session_of_its_own(tmp_path: Path) -> None:
    """Ctrl-C at the terminal does not reach it."""
    child = start(POLITE, tmp_path)
    try:
        assert os.getsid(child.process.pid) == child.process.pid != os.getsid(0)
    finally:
        child.kill()


def test_stopping_what_never_started_is_no_error() -> None:
    """Cleaning up needs no questions."""
    child = ChildProcess(["true"])

    child.stop(patience_seconds=1)
    child.kill()

    assert not child.is_running
    with pytest.raises(RuntimeError, match="was never started"):
        _ = child.process


def test_standard_input_is_handed_over(tmp_path: Path) -> None:
    """What must not stand on the command line goes this way."""
    child = ChildProcess([sys.executable, "-c", "print(input())"], log_path=tmp_path / "log")

    child.start(stdin=b"secret\n")
    child.process.wait(timeout=20)

    assert child.tail(1) == "secret"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_the_tail_of_a_long_log_is_its_end(tmp_path: Path) -> None:
    """A log of any size is read in bounded memory."""
    child = ChildProcess(["true"], log_path=tmp_path / "log")
    (tmp_path / "log").write_text("".join(f"line {number}\n" for number in range(100_000)))

    assert child.tail(2) == "line 99998\nline 99999"
