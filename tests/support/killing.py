# SPDX-License-Identifier: Apache-2.0
"""Run a function in a child that kills itself with SIGKILL at a chosen line of our own code."""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import worker

if TYPE_CHECKING:
    from _typeshed import TraceFunction

_OURS = str(Path(worker.__path__[0])) + os.sep


def count_lines(function: Callable[[], object]) -> int:
    """Run `function` and return how many lines of the package it executed."""
    counter = _Counter(stop_at=None)
    counter.run(function)
    return counter.lines


def run_killed(function: Callable[[], object], *, at_line: int) -> bool:
    """Run `function` in a child that is gone before its `at_line`th line of the package, counted from 1.

    Returns:
        Whether the child was killed; false if it finished before.
    """
    child = _fork()
    if child == 0:
        _run_and_exit(function, at_line)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the child failed instead of being killed"
    return False


def _fork() -> int:
    with warnings.catch_warnings():
        # The child runs our code only and leaves by _exit: threads of servers elsewhere in the process do not matter.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _run_and_exit(function: Callable[[], object], at_line: int) -> None:
    code = 0
    try:
        _Counter(stop_at=at_line).run(function)
    except BaseException:  # noqa: BLE001 - nothing may return into the test runner's frames
        traceback.print_exc()
        code = 1
    os._exit(code)


class _Counter:
    def __init__(self, *, stop_at: int | None) -> None:
        self.lines = 0
        self._stop_at = stop_at

    def run(self, function: Callable[[], object]) -> None:
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            function()
        finally:
            sys.settrace(before)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> "TraceFunction | None":  # noqa: ARG002 - the tracer's signature
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self._stop_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return self._trace
