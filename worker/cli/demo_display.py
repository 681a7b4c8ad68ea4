# SPDX-License-Identifier: Apache-2.0
"""What the demonstration shows: numbered steps with their time, and what they brought."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

_INDENT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTaken:
    """One step that was done."""

    step: str
    seconds: float


class Display:
    """Shows the steps of a demonstration and remembers them."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.steps: list[StepTaken] = []
        self._started = 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show a step before it begins and how long it took when it is done, or that it failed."""
        self._started += 1
        number, started = f"{self._started:2}.", time.monotonic()
        self.console.print(Text.assemble((f"{number} {title}", "bold")))
        try:
            yield
        except BaseException:
            self.console.print(Text(f"{'':{_INDENT}}✗ {title}", style="red"))
            raise
        seconds = time.monotonic() - started
        self.steps.append(StepTaken(step=title, seconds=round(seconds, 3)))
        self.console.print(Text.assemble(" " * _INDENT, ("✓", "green"), (f" {_duration(seconds)}", "dim")))

    def say(self, text: str) -> None:
        """Show a sentence of the step under way."""
        self.show(Text(text))

    def warn(self, text: str) -> None:
        """Show what the user should know before trusting what follows."""
        self.console.print(Padding(Text(text, style="yellow"), (0, 0, 0, _INDENT), expand=False))

    def show(self, renderable: RenderableType) -> None:
        """Show what the step under way brought."""
        self.console.print(Padding(renderable, (0, 0, 0, _INDENT), expand=False))

    def show_output(self, command: str, output: str) -> None:
        """Show what a program printed."""
        self.show(Panel(Text(output.rstrip() or "(no output)"), title=Text(command), title_align="left", expand=False))

    def show_log(self, title: str, tail: str) -> None:
        """Show the end of a log."""
        self.console.print(Panel(Text(tail or "(empty)"), title=title, title_align="left", border_style="red"))

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Show a bar while something is counted up; gives the function that is told how many of how many."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=28), MofNCompleteColumn())
        is_hidden = not self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=is_hidden) as progress:
            line = progress.add_task(f"   {what}", total=None)
            yield lambda done, total: progress.update(line, completed=done, total=total)


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
