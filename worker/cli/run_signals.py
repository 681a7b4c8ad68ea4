# SPDX-License-Identifier: Apache-2.0
"""Wait for a program and pass on to it the signals that were meant for it.

Signals are taken one by one instead of interrupting: a blocked signal tells where it came from. One that the terminal
sent (Ctrl-C) went to the whole process group, and so to the program; passed on it would arrive twice.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_TAKEN = frozenset({*FORWARDED, signal.SIGCHLD})
_SI_KERNEL = 0x80
_SIGNAL_EXIT = 128
_IDLE_SECONDS = 3600.0


@contextmanager
def signals_taken() -> Iterator[frozenset[signal.Signals]]:
    """Block what `wait_forwarding` takes, from before the program starts; lend the mask that the program must get."""
    before = frozenset(signal.Signals(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN))
    try:
        yield before
    finally:
        # What came too late to be passed on must not hit the command while it ends.
        while signal.sigtimedwait(_TAKEN, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait_forwarding(process: subprocess.Popen[bytes], *, stop_seconds: float, kill: Callable[[], None]) -> int:
    """Wait for the process and return its exit code, 128 and the signal's number if one ended it.

    Args:
        process: Passes on to its own child what it gets.
        stop_seconds: How long after SIGTERM `kill` is called; the first process of a container ignores SIGTERM unless
            it has a handler for it.
        kill: Ends the process surely.
    """
    deadline: float | None = None
    while (code := process.poll()) is None:
        seconds = _IDLE_SECONDS if deadline is None else max(0.0, deadline - time.monotonic())
        taken = signal.sigtimedwait(_TAKEN, seconds)
        if taken is None:
            if deadline is not None:
                kill()
                deadline = time.monotonic() + _IDLE_SECONDS
        elif taken.si_signo != signal.SIGCHLD:
            if taken.si_code != _SI_KERNEL:
                process.send_signal(taken.si_signo)
            if taken.si_signo == signal.SIGTERM and deadline is None:
                deadline = time.monotonic() + stop_seconds
    return code if code >= 0 else _SIGNAL_EXIT - code
