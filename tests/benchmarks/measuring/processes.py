# SPDX-License-Identifier: Apache-2.0
"""What processes used: CPU, bytes written, memory. Asked of /proc, for a daemon and for a command that has ended."""

import os
import resource
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What processes have used since they started, or between two moments.

    Attributes:
        cpu_seconds: User and system time.
        written_bytes: Dirtied for, or written to, block devices; metadata included, the journal not.
    """

    cpu_seconds: float = 0.0
    written_bytes: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            cpu_seconds=self.cpu_seconds + other.cpu_seconds, written_bytes=self.written_bytes + other.written_bytes
        )

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(
            cpu_seconds=self.cpu_seconds - other.cpu_seconds, written_bytes=self.written_bytes - other.written_bytes
        )


def usage_of(pids: Iterable[int]) -> Usage:
    """Return what the processes and their descendants have used, ended children that were waited for included."""
    return sum((_usage(pid) for pid in descendants(pids)), Usage())


def own_usage() -> Usage:
    """Return what this process has used, without its children."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(cpu_seconds=own.ru_utime + own.ru_stime)


def peak_rss_bytes(pids: Iterable[int]) -> int:
    """Return the largest resident set that any one of the processes and their descendants has had."""
    return max(_peak(pid) for pid in descendants(pids))


def descendants(pids: Iterable[int]) -> list[int]:
    """Return the processes and all below them."""
    found = []
    queue = list(pids)
    while queue:
        pid = queue.pop()
        found.append(pid)
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            queue += map(int, children.read_text().split())
    return found


def _usage(pid: int) -> Usage:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # utime, stime, cutime, cstime: fields 14 to 17 of proc(5), counted from 1; the third stands first here.
    ticks = sum(map(int, fields[11:15]))
    return Usage(cpu_seconds=ticks / _TICKS_PER_SECOND, written_bytes=_written(pid))


def _written(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes:")).split()[1])


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


class Commands:
    """Runs commands one after the other and adds up what they and their children used.

    Attributes:
        usage: Of all so far.
    """

    def __init__(self) -> None:
        self.usage = Usage()

    def run(self, command: Sequence[str | Path], **environment: str) -> str:
        """Run a command to its end, with more variables in its environment, and return what it printed.

        Raises:
            RuntimeError: It failed; with the end of what it printed.
        """
        with tempfile.TemporaryFile() as output:
            env = {**os.environ, **environment}
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env)
            try:
                self.usage += _reap(process)
            except BaseException:
                process.kill()
                process.wait(timeout=20)
                raise
            output.seek(0)
            text = output.read().decode(errors="replace")
        if process.returncode:
            raise RuntimeError(f"{command[0]} {command[1]} ended with {process.returncode}: {text[-2000:]}")
        return text


def _reap(process: subprocess.Popen[bytes]) -> Usage:
    # Ended, not yet reaped: its accounting is still there to be read, children included.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    written_bytes = _written(process.pid)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Usage(cpu_seconds=used.ru_utime + used.ru_stime, written_bytes=written_bytes)
