# SPDX-License-Identifier: Apache-2.0
"""Somebody who cleans up when the one who should is killed.

A guard is a child in a session of its own, out of reach of whatever kills the command's process group. It waits until
the command ends, whichever way, and until the runtime that the command started has ended too; then it cleans up. There
is no other way of cleaning up, so the one that is rarely needed is the one that is always used::

    command ── fork ──> guard     waits for the end of the pipe, and of the runtime named in it; cleans up
       └────── spawn ─> runtime   killed by the kernel when the command dies
"""

import os
import select
import signal
import termios
from collections.abc import Callable
from contextlib import suppress

_PID_BYTES = 32
_LAST_SECONDS = 10.0
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Guard:
    """A guard at work, seen from the command that it waits for.

    Args:
        clean_up: Called in the guard, once; safe to repeat.
    """

    def __init__(self, clean_up: Callable[[], None]) -> None:
        self._clean_up = clean_up
        reader, self._writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._writer)
            _guard(reader, clean_up)
        os.close(reader)

    def note_runtime(self) -> None:
        """Tell the guard that the calling process is the runtime it must outlive; called between fork and exec."""
        os.write(self._writer, str(os.getpid()).encode())

    def dismiss(self) -> None:
        """Let the guard clean up, and return when it is done; a guard that was killed is stood in for."""
        os.close(self._writer)
        _, status = os.waitpid(self._pid, 0)
        if status != 0:
            self._clean_up()


def _guard(reader: int, clean_up: Callable[[], None]) -> None:
    """Do the guard's whole work and never return."""
    code = 1
    try:
        terminal = _terminal_attributes()
        _leave_session()
        _wait(reader)
        clean_up()
        if terminal is not None:
            with suppress(termios.error):
                termios.tcsetattr(0, termios.TCSANOW, terminal)
        code = 0
    except Exception as error:  # noqa: BLE001 - nothing may return into the command's frames
        os.write(2, f"cleaning up failed: {error}\n".encode())
    finally:
        os._exit(code)


def _terminal_attributes() -> "list[int | list[bytes | int]] | None":
    """Remember how the terminal is set: a runtime that is killed leaves it raw."""
    with suppress(termios.error, OSError):
        return termios.tcgetattr(0)
    return None


def _leave_session() -> None:
    os.setsid()
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Whoever reads the command's output must not wait for the guard.
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(nowhere, 1)


def _wait(reader: int) -> None:
    """Wait for the end of the command, then for that of the runtime, which the kernel kills with it."""
    text = os.read(reader, _PID_BYTES)
    if not text:
        return
    with suppress(ProcessLookupError):
        runtime = os.pidfd_open(int(text))
        while os.read(reader, _PID_BYTES):
            pass
        if not select.select([runtime], [], [], _LAST_SECONDS)[0]:
            signal.pidfd_send_signal(runtime, signal.SIGKILL)
        return
    while os.read(reader, _PID_BYTES):
        pass
