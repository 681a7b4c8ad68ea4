# SPDX-License-Identifier: Apache-2.0
"""A benchmark's own directory, taken down with all that is mounted in it, also when the benchmark is interrupted."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tests.support.mounts import mounts_below, unmount


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """Make a directory below TMPDIR for the context's time; processes in it are ended before by who started them."""
    directory = Path(tempfile.mkdtemp(prefix=f"bench-{name}-"))
    try:
        yield directory
    finally:
        remove(directory)


def remove(directory: Path) -> None:
    """Unmount all below the directory, innermost first, and remove it, without leaving its file system."""
    unmount(mounts_below(directory))
    subprocess.run(["rm", "-rf", "--one-file-system", directory], check=True)


def run(benchmark: Callable[[], None]) -> None:
    """Run a benchmark's main function; Ctrl-C and SIGTERM end it in good order, with status 130."""
    interrupts: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        # Also SIGINT: a shell without job control starts its background commands with it ignored.
        signal.signal(number, interrupt)
    try:
        benchmark()
    except BaseException:
        # Ctrl-C reaches the servers too, so that what it makes of the benchmark may be an error of theirs.
        if not interrupts:
            raise
        sys.exit(130)
