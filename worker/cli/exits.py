# SPDX-License-Identifier: Apache-2.0
"""Errors as people at a terminal meet them: one sentence, a hint, an exit code, no traceback."""

from enum import IntEnum
from typing import IO, Any

import click
from typing_extensions import override

from worker.cli.output import stderr
from worker.errors import AnswerTimeout, InvalidArgument, NodeUnreachable, ProvisionerError, StateUnavailable


class ExitCode(IntEnum):
    """What the shell sees."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_ANSWER = 3
    NOT_RUN = 125
    INTERRUPTED = 130


class Failure(click.ClickException):
    """The command ends here.

    Args:
        message: One sentence.
        exit_code: What the shell sees.
        hint: What to do about it.
    """

    def __init__(self, message: str, *, exit_code: ExitCode = ExitCode.FAILED, hint: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for the class
        self.hint = hint

    @override
    def show(self, file: IO[Any] | None = None) -> None:
        stderr.print("[bold red]error:[/]", end=" ")
        stderr.print(self.message, markup=False, highlight=False)
        if self.hint:
            stderr.print("[bold]hint:[/]", end=" ")
            stderr.print(self.hint, markup=False, highlight=False)


def failure_of(error: ProvisionerError) -> Failure:
    """Translate an error met on this side of the queue; what a task answers is always FAILED."""
    match error:
        case InvalidArgument():
            return Failure(str(error), exit_code=ExitCode.USAGE)
        case StateUnavailable():
            hint = "PROVISIONER_REDIS_URL names the server; `provisioner up` starts one on this machine"
            return Failure(str(error), exit_code=ExitCode.NO_ANSWER, hint=hint)
        case NodeUnreachable():
            hint = "`provisioner nodes` lists them; `celery --app worker worker` or `provisioner up` starts one"
            return Failure(str(error), exit_code=ExitCode.NO_ANSWER, hint=hint)
        case AnswerTimeout():
            hint = "--timeout waits longer; `provisioner ps` shows what became of it"
            return Failure(str(error), exit_code=ExitCode.NO_ANSWER, hint=hint)
        case _:
            return Failure(str(error))
