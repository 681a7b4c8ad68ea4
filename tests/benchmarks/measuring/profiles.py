# SPDX-License-Identifier: Apache-2.0
"""A profile of many runs of one task, as tables: by kinds of work, and by functions.

cProfile makes Python code slower, about by half, and what the kernel does hardly at all: shares of the latter are a
little higher in truth.
"""

import pstats
from pathlib import Path

from rich.table import Table

_REPOSITORY_DIR = Path(__file__).resolve().parents[3]
_FUNCTIONS_SHOWN = 32

_KINDS = {
    # Kind of work -> where it happens: the end of the file's name and the function; built-ins have no file.
    "fsync": (("~", "<built-in method posix.fsync>"), ("~", "<built-in method posix.fdatasync>")),
    "Redis: our scripts": (("redis/commands/core.py", "__call__"),),
    "mount, unmount": (("worker/linux/libc.py", "call"), ("worker/linux/libc.py", "system_call")),
    "mkdir, rmdir, rename, unlink": tuple(
        ("~", f"<built-in method posix.{call}>") for call in ("mkdir", "rmdir", "rename", "unlink")
    ),
    "open, close": (
        ("~", "<built-in method posix.open>"),
        ("~", "<built-in method posix.close>"),
        ("~", "<built-in method io.open>"),
    ),
    "stat": tuple(("~", f"<built-in method posix.{call}>") for call in ("stat", "lstat", "statvfs")),
    "flock": (("~", "<built-in method fcntl.flock>"),),
    "JSON": (("json/__init__.py", "loads"), ("json/__init__.py", "dumps")),
}

_Function = tuple[str, int, str]
_Figures = tuple[int, int, float, float]


class Profile:
    """What `rounds` runs of one task did."""

    def __init__(self, path: Path, *, rounds: int) -> None:
        statistics = pstats.Stats(str(path)).stats  # type: ignore[attr-defined]
        self._rounds = rounds
        self._functions: dict[_Function, _Figures] = {where: each[:4] for where, each in statistics.items()}

    def kinds_table(self, title: str) -> Table:
        """Show what the kinds of work take; the rest is Python of ours, and of others."""
        total = max(figures[3] for (file, _, _), figures in self._functions.items() if "/tasks/" in file)
        table = Table("kind of work", "calls a task", "ms a task", "share", title=title)
        rest = total
        for kind, places in _KINDS.items():
            calls, seconds = self._sum(places)
            rest -= seconds
            table.add_row(kind, f"{calls / self._rounds:.1f}", self._ms(seconds), f"{seconds / total:.0%}")
        table.add_row("the rest", "", self._ms(rest), f"{rest / total:.0%}")
        table.add_row("all", "", self._ms(total), "")
        return table

    def _sum(self, places: tuple[tuple[str, str], ...]) -> tuple[int, float]:
        found = [
            figures
            for (file, _, function), figures in self._functions.items()
            if any(file.endswith(end) and function == name for end, name in places)
        ]
        return sum(figures[1] for figures in found), sum(figures[3] for figures in found)

    def functions_table(self, title: str) -> Table:
        """Show the functions of this project in which most time passes, with all they call."""
        table = Table("function", "calls a task", "with all it calls, ms", "itself, ms", title=title)
        ours = [(where, each) for where, each in self._functions.items() if where[0].startswith(str(_REPOSITORY_DIR))]
        shown = [(where, each) for where, each in ours if "/.venv/" not in where[0]]
        shown.sort(key=lambda entry: entry[1][3], reverse=True)
        for (file, line, function), (_, calls, own, total) in shown[:_FUNCTIONS_SHOWN]:
            place = f"{file.removeprefix(f'{_REPOSITORY_DIR}/')}:{line} {function}"
            table.add_row(place, f"{calls / self._rounds:.1f}", self._ms(total), self._ms(own))
        return table

    def _ms(self, seconds: float) -> str:
        return f"{1000 * seconds / self._rounds:.2f}"
