# SPDX-License-Identifier: Apache-2.0
"""Ports and waiting: what every started server needs."""

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

STARTUP_SECONDS = 20.0


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    """Tell whether somebody accepts connections on 127.0.0.1:`port`."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(
    is_done: Callable[[], bool], what: str, *, seconds: float = STARTUP_SECONDS, poll_seconds: float = 0.02
) -> None:
    """Return once `is_done` answers true.

    Raises:
        TimeoutError: After `seconds`, naming `what`.
    """
    deadline = time.monotonic() + seconds
    while not is_done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {seconds:g} s")
        time.sleep(poll_seconds)


def wait_for_server(process: subprocess.Popen[bytes], is_ready: Callable[[], bool], *, log_path: Path) -> None:
    """Return once the server answers.

    Raises:
        RuntimeError: When the process ends instead; with the end of its log.
        TimeoutError: When it does neither.
    """

    def is_ready_or_dead() -> bool:
        if process.poll() is not None:
            tail = log_path.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}:\n{tail}")
        return is_ready()

    wait_until(is_ready_or_dead, f"start of {process.args!r}")
