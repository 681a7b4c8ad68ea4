# SPDX-License-Identifier: Apache-2.0
"""From samples to what is printed, and under which conditions they were taken."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

MIB = 1024 * 1024


def percentile(samples: Sequence[float], part: float) -> float:
    """Return the sample below which `part` (0..1) of all lie; nearest rank."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def seconds_of(act: Callable[[], object]) -> float:
    """Return how long it takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def median(samples: Sequence[float]) -> float:
    """Return the middle sample."""
    return statistics.median(samples)


def milliseconds(seconds: float) -> str:
    """Print with a precision that a noisy machine deserves."""
    return f"{seconds * 1000:,.1f}"


def conditions() -> str:
    """Say on what the figures were taken: they mean little on their own."""
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"{os.cpu_count()} CPUs ({_cpu_model()}), Linux {platform.release()}, load average {load}"


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def wide_console() -> Console:
    """Return a console for tables; a pipe is taken to be wide enough for them."""
    console = Console()
    return console if console.is_terminal else Console(width=140)
