# SPDX-License-Identifier: Apache-2.0
"""Stop a process at its n-th step, for as long as it takes others to do something, and let it go on."""

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass

STEPS = frozenset(
    {
        "open",
        "os.rename",
        "os.mkdir",
        "os.remove",
        "os.rmdir",
        "os.setxattr",
        "fcntl.flock",
        "socket.connect",
        "threading.start",
    }
)
"""The interpreter's audit events that count: between any two of them a process can lose its turn for a minute."""


@dataclass(frozen=True)
class PausedProcess:
    """A child that has stopped itself.

    Attributes:
        pid: Its process id.
    """

    pid: int

    def resume(self) -> int:
        """Let it go on to its end; return its exit status: 0 for a function that returned, 1 for one that raised."""
        self.go_on()
        return self.wait()

    def go_on(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def wait(self) -> int:
        """Wait for its end; return its exit status."""
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        """Kill it where it stands."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def paused_at(step: int, act: Callable[[], object]) -> PausedProcess | None:
    """Run `act` in a child that stops at its `step`-th step, counted from 1; None if it ended before."""
    with warnings.catch_warnings():
        # The child builds whatever it uses itself and leaves by _exit: no thread of this process matters to it.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _run_and_exit(act, step)
    _, status = os.waitpid(child, os.WUNTRACED)
    return PausedProcess(child) if os.WIFSTOPPED(status) else None


def _run_and_exit(act: Callable[[], object], step: int) -> None:
    status = 1
    with contextlib.suppress(BaseException):
        seen = 0

        def count(event: str, _: object) -> None:
            nonlocal seen
            if event in STEPS:
                seen += 1
                if seen == step:
                    os.kill(os.getpid(), signal.SIGSTOP)

        sys.addaudithook(count)
        act()
        status = 0
    os._exit(status)
