# SPDX-License-Identifier: Apache-2.0
"""A line that shows how far a task is, for as long as it is awaited."""

from collections.abc import Iterator
from contextlib import contextmanager

from celery import states
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from worker.cli.answers import OnStatus, TaskStatus

_WORDS = {
    states.PENDING: "waiting for a worker",
    states.STARTED: "working",
    states.RETRY: "waiting to try again",
    "PROGRESS": "pulling",
}


@contextmanager
def shown_progress(console: Console, title: str) -> Iterator[OnStatus]:
    """Show a spinner, a bar of the bytes and the layers done of how many; all of it is gone at the end.

    Nothing is shown where the console is no terminal.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        DownloadColumn(),
        TextColumn("{task.fields[layers]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        line = progress.add_task(title, total=None, layers="")

        def show(status: TaskStatus) -> None:
            progress.update(line, description=f"{title}: {describe(status)}")
            if status.is_progress:
                progress.update(
                    line,
                    completed=status.info["bytes_fetched"],
                    total=status.info["bytes_total"] or None,
                    layers=layers_text(status),
                )

        yield show


def describe(status: TaskStatus) -> str:
    """Say what a task is doing; of a failure that is retried, why."""
    words = _WORDS.get(status.state, status.state.lower())
    return f"{words} ({status.info})" if status.state == states.RETRY else words


def layers_text(status: TaskStatus) -> str:
    """Say how many layers are there of how many, as far as the task tells."""
    return f"layers {status.info['layers_done']}/{status.info['layers_total']}" if status.is_progress else ""
