# SPDX-License-Identifier: Apache-2.0
"""Send a task by its name, as any scheduler does, and wait for its answer while showing how far it is."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import redis
from celery import Celery, states
from kombu.exceptions import OperationalError

from worker.cli.exits import Failure
from worker.errors import AnswerTimeout, StateUnavailable

QUEUE = "provision"
_FIRST_POLL_SECONDS = 0.002
_LONGEST_POLL_SECONDS = 0.2
_POLL_GROWTH = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    """A task at one moment.

    Attributes:
        state: One of Celery's, or PROGRESS.
        info: The answer, the error, or how far the task is.
    """

    state: str
    info: Any

    @property
    def is_progress(self) -> bool:
        """Whether `info` says how far a pull is."""
        return self.state == "PROGRESS" and isinstance(self.info, Mapping)


OnStatus = Callable[[TaskStatus], None]


def _unseen(_: TaskStatus) -> None:
    """Nobody watches."""


def ask(
    app: Celery, task: str, keywords: Mapping[str, Any], *, timeout_seconds: float, on_status: OnStatus = _unseen
) -> Any:
    """Send `provisioner.<task>` and return its answer.

    Args:
        timeout_seconds: Of the wait; the task itself goes on.
        on_status: Called at every look, also while waiting for a worker.

    Raises:
        Failure: The task failed; with its sentence.
        AnswerTimeout: No answer in time.
        StateUnavailable: Redis did not take the task.
    """
    name = f"provisioner.{task}"
    task_id = _send(app, name, keywords)
    deadline, pause = time.monotonic() + timeout_seconds, _FIRST_POLL_SECONDS
    while True:
        status = _look(app, task_id)
        on_status(status)
        if status.state in states.READY_STATES:
            return _answer_of(name, status)
        if time.monotonic() >= deadline:
            raise AnswerTimeout(task=name, task_id=task_id, seconds=timeout_seconds)
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(pause * _POLL_GROWTH, _LONGEST_POLL_SECONDS)


def _send(app: Celery, name: str, keywords: Mapping[str, Any]) -> str:
    try:
        return str(app.send_task(name, kwargs=dict(keywords), queue=QUEUE).id)
    except (OperationalError, redis.RedisError, RuntimeError) as error:
        # RuntimeError is what Celery makes of a result backend that stays away.
        raise StateUnavailable(reason=f"{name} was not sent: {_reason(error)}") from error


def _look(app: Celery, task_id: str) -> TaskStatus:
    """Read the task's state in one round trip; while Redis is away, nothing is known and the wait goes on."""
    try:
        meta = app.backend.get_task_meta(task_id, cache=False)
    except (OperationalError, redis.RedisError) as error:
        return TaskStatus(state=states.PENDING, info=error)
    return TaskStatus(state=meta["status"], info=meta.get("result"))


def _reason(error: Exception) -> str:
    return " ".join(str(error.__cause__ or error).split())


def _answer_of(name: str, status: TaskStatus) -> Any:
    if status.state == states.SUCCESS:
        return status.info
    raise Failure(str(status.info) or f"{name} ended as {status.state}: {status.info!r}")
