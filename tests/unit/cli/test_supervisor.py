# SPDX-License-Identifier: Apache-2.0
"""Several programs in one terminal."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from worker.cli.supervisor import Program, supervise

SERVER = """
import signal, sys, time
def end(*_):
    print("ended", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("started", flush=True)
time.sleep(600)
"""


class Screen:
    """Collects what is shown."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def show(self, name: str, line: str) -> None:
        """Remember a line."""
        with self._lock:
            self.lines.append((name, line))


def program(name: str, text: str, *, patience_seconds: float = 20.0) -> Program:
    """Return a Python program."""
    return Program(name=name, command=(sys.executable, "-c", text), patience_seconds=patience_seconds)


def run(programs: list[Program], screen: Screen, cwd: Path, *, interrupt_after: int) -> str | None:
    """Supervise; send SIGTERM to this process once so many lines were shown."""

    def on_tick() -> None:
        if len(screen.lines) >= interrupt_after:
            os.kill(os.getpid(), signal.SIGTERM)

    return supervise(programs, environment={**os.environ}, cwd=cwd, show_line=screen.show, on_tick=on_tick)


def test_the_last_to_start_is_the_first_to_end(tmp_path: Path) -> None:
    """Each ends while what it needs still runs."""
    screen = Screen()

    ended = run([program(name, SERVER) for name in ("first", "second")], screen, tmp_path, interrupt_after=2)

    assert ended is None
    assert sorted(screen.lines[:2]) == [("first", "started"), ("second", "started")]
    assert screen.lines[2:] == [("second", "ended"), ("first", "ended")]


def test_one_that_ends_by_itself_ends_the_others_and_is_named(tmp_path: Path) -> None:
    """A cluster without its worker is none."""
    screen = Screen()
    programs = [program("server", SERVER), program("broken", "print('no'); raise SystemExit(1)")]

    ended = run(programs, screen, tmp_path, interrupt_after=1000)

    assert ended == "broken"
    assert ("broken", "no") in screen.lines


def test_one_that_will_not_end_is_killed(tmp_path: Path) -> None:
    """After its patience, with all it started."""
    screen = Screen()
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )

    ended = run([program("stubborn", stubborn, patience_seconds=0.1)], screen, tmp_path, interrupt_after=1)

    assert ended is None


def test_a_program_that_cannot_be_started_leaves_no_other_running(tmp_path: Path) -> None:
    """Those before it are stopped."""
    screen = Screen()
    missing = Program(name="missing", command=(str(tmp_path / "nothing"),))
    pid_path = tmp_path / "pid"
    server = f"import os; open({str(pid_path)!r}, 'w').write(str(os.getpid()))\n{SERVER}"

    with pytest.raises(FileNotFoundError):
        run([program("server", server), missing], screen, tmp_path, interrupt_after=1000)

    assert not pid_path.exists() or not Path(f"/proc/{pid_path.read_text()}").exists()
