# SPDX-License-Identifier: Apache-2.0
"""Errors at the terminal."""

import pytest

from worker.cli.exits import ExitCode, Failure, failure_of
from worker.errors import (
    AnswerTimeout,
    InvalidArgument,
    NodeUnreachable,
    ProvisionerError,
    RecordCorrupt,
    StateUnavailable,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidArgument(argument="image", value="?", reason="it is malformed"), ExitCode.USAGE),
        (StateUnavailable(reason="refused"), ExitCode.NO_ANSWER),
        (NodeUnreachable(node="n1"), ExitCode.NO_ANSWER),
        (AnswerTimeout(task="provisioner.prune", task_id="1", seconds=5), ExitCode.NO_ANSWER),
        (RecordCorrupt(path="/store/store.json", reason="it is empty"), ExitCode.FAILED),
    ],
)
def test_each_kind_of_error_has_its_code_and_keeps_its_sentence(error: ProvisionerError, code: ExitCode) -> None:
    """Scripts go by the code, people by the sentence."""
    failure = failure_of(error)

    assert failure.exit_code == code
    assert failure.message == str(error)
    assert bool(failure.hint) == (code is ExitCode.NO_ANSWER)


def test_a_failure_is_shown_as_it_is_with_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets in a sentence are no markup, and nothing of it goes to standard output."""
    Failure("image [bold]x[/] not found", hint="try [red]another[/]").show()

    captured = capsys.readouterr()
    assert captured.err == "error: image [bold]x[/] not found\nhint: try [red]another[/]\n"
    assert captured.out == ""
