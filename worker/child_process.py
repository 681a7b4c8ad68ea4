# SPDX-License-Identifier: Apache-2.0
"""A program this one starts and is sure to stop again, with everything that program started."""

import os
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_KILL_SECONDS = 10.0
_TAIL_BYTES = 64 * 1024
_LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class ChildProcess:
    """A program in a session of its own: Ctrl-C at the terminal reaches its parent only, which stops it in order.

    Args:
        command: The program and its arguments. Visible to every user of the host: no passwords.
        log_path: Where its output is appended; to the pipe `output` if there is none.
        environment: All of it; the parent's by default.
        cwd: Where it runs; here by default.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log_path: Path | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.command = tuple(command)
        self.log_path = log_path
        self._environment = environment
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, stdin: bytes | None = None, pass_fds: Collection[int] = ()) -> None:
        """Start the program.

        Args:
            stdin: Written to it at once; must fit a pipe: 64 KiB.
            pass_fds: Descriptors it inherits.
        """
        log = subprocess.PIPE if self.log_path is None else os.open(self.log_path, _LOG_FLAGS, 0o600)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - its commands are ours
                self.command,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._cwd,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        finally:
            if log != subprocess.PIPE:
                os.close(log)
        if stdin is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError), self._process.stdin as stream:
                stream.write(stdin)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that was started. Its pid is also its session and process group."""
        if self._process is None:
            raise RuntimeError(f"{self.command[0]} was never started")
        return self._process

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def stop(self, *, patience_seconds: float) -> None:
        """Ask the program to end, then kill what is left of its group.

        Effect: on return neither it nor anything it started in its group runs. Safe to repeat.
        """
        if self._process is None:
            return
        try:
            if self.is_running:
                self._process.terminate()
            self._process.wait(timeout=patience_seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill the whole group at once and reap the program."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=_KILL_SECONDS)

    def tail(self, lines: int) -> str:
        """Return the last lines of its log."""
        if self.log_path is None or not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
