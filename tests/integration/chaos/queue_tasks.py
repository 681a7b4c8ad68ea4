# SPDX-License-Identifier: Apache-2.0
"""Tasks that keep their own book, for whatever worker includes this module.

`CHAOS_LEDGER` names a file outside of the Redis under test. A line is one write(2) with O_APPEND: whole or not there,
and there when its writer is killed right afterwards.
"""

import os
import signal
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from celery import shared_task
from celery.signals import task_postrun, task_prerun

from tests.integration.chaos.queue_names import ID_PREFIX, LEDGER_VARIABLE, POISON, WORK

_PUT_OFF_SECONDS = 0.5


@shared_task(name=WORK, bind=True, ignore_result=True, max_retries=None)  # type: ignore[untyped-decorator]
def work(self: Any, *, number: int, seconds: float = 0.0, retries: int = 0) -> None:
    """Note that it began, take some time, note that it is done; before that be put off `retries` times."""
    note("begun", number)
    if self.request.retries < retries:
        note("put-off", number)
        raise self.retry(countdown=_PUT_OFF_SECONDS)
    time.sleep(seconds)
    note("done", number)


@shared_task(name=POISON, ignore_result=True)  # type: ignore[untyped-decorator]
def poison(*, number: int) -> None:
    """Note that it began, and take its process along."""
    note("begun", number)
    os.kill(os.getpid(), signal.SIGKILL)


_ENDS = {"SUCCESS": "done", "FAILURE": "failed"}


@task_prerun.connect  # type: ignore[untyped-decorator]
def note_begun(task_id: str, task: Any, **_: object) -> None:
    """Keep the book of the project's own tasks, which know nothing of it."""
    if _is_verb(task_id, task):
        note("begun", int(task_id.removeprefix(ID_PREFIX)))


@task_postrun.connect  # type: ignore[untyped-decorator]
def note_ended(task_id: str, task: Any, state: str | None, **_: object) -> None:
    """Note how it ended; one that is retried, or sent on to another node, is put off."""
    if _is_verb(task_id, task):
        note(_ENDS.get(state or "", "put-off"), int(task_id.removeprefix(ID_PREFIX)))


def _is_verb(task_id: str, task: Any) -> bool:
    return bool(task.name.startswith("provisioner.")) and task_id.startswith(ID_PREFIX)


def note(event: str, number: int) -> None:
    """Write what happened to which task, when, in which worker (its session) and process."""
    line = f"{event} {number} {time.monotonic():.6f} {os.getsid(0)} {os.getpid()}\n"
    os.write(_ledger(Path(os.environ[LEDGER_VARIABLE])), line.encode())


@lru_cache(maxsize=1)
def _ledger(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
