# SPDX-License-Identifier: Apache-2.0
"""The line that shows how far a task is."""

import io

import pytest
from rich.console import Console

from worker.cli.answers import TaskStatus
from worker.cli.progress import describe, layers_text, shown_progress
from worker.errors import RegistryUnavailable

PULLING = TaskStatus(
    state="PROGRESS",
    info={"bytes_fetched": 5_000_000, "bytes_total": 10_000_000, "layers_done": 1, "layers_total": 3},
)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (TaskStatus(state="PENDING", info=None), "waiting for a worker"),
        (TaskStatus(state="STARTED", info={"pid": 1}), "working"),
        (PULLING, "pulling"),
        (TaskStatus(state="REVOKED", info=None), "revoked"),
        (
            TaskStatus(state="RETRY", info=RegistryUnavailable(registry="r", reason="503")),
            "waiting to try again (r is unavailable: 503)",
        ),
    ],
)
def test_states_are_said_in_words(status: TaskStatus, text: str) -> None:
    """A retry says why."""
    assert describe(status) == text


def test_bytes_and_layers_are_shown_at_a_terminal() -> None:
    """Both, since a layer may be most of the image."""
    console = Console(file=io.StringIO(), force_terminal=True, width=120)

    with shown_progress(console, "pull alpine") as show:
        show(PULLING)

    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "pull alpine: pulling" in output
    assert "5.0/10.0 MB" in output
    assert layers_text(PULLING) == "layers 1/3"
    assert "layers 1/3" in output


def test_nothing_is_shown_in_a_pipe() -> None:
    """A log full of spinners helps nobody."""
    console = Console(file=io.StringIO(), force_terminal=False)

    with shown_progress(console, "pull alpine") as show:
        show(PULLING)

    assert console.file.getvalue().strip() == ""  # type: ignore[attr-defined]
