# SPDX-License-Identifier: Apache-2.0
"""What all tasks share: keywords only, forwarding to the right node, retries of transient failures, progress."""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NoReturn, TypeVar

import redis
from celery import Task
from celery.exceptions import Reject
from celery.states import SUCCESS
from kombu.exceptions import OperationalError
from typing_extensions import override

from worker.errors import InvalidArgument, PermanentError, ProvisionerError, TransientError
from worker.provisioner import Elsewhere, Progress, Provisioner
from worker.runtime import process_nodes, process_provisioner
from worker.settings import process_settings, queue_of_node

Answer = TypeVar("Answer")
PROGRESS = "PROGRESS"
_PROGRESS_INTERVAL_SECONDS = 0.5
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
_UNPUBLISHED = (OperationalError, redis.RedisError, OSError)
"""What publishing raises while Redis is away or refuses."""
_log = logging.getLogger(__name__)


class PatientTask(Task):  # type: ignore[misc]  # Celery has no types
    """What all tasks of the app are: what follows one is published however long Redis is away or refuses.

    Written against Celery 5.7.0.
    """

    @override
    def retry(self, *args: Any, **kwargs: Any) -> Any:
        """Publish the next attempt; Celery rejects the message for good when it cannot."""

        def is_unpublished(error: Exception) -> bool:
            return isinstance(error, Reject) and isinstance(error.reason, _UNPUBLISHED)

        return persistently(lambda: super(PatientTask, self).retry(*args, **kwargs), is_unpublished)

    @override
    def on_replace(self, sig: Any) -> Any:
        """Publish what takes this task's place; Celery lets the task fail when it cannot."""
        return persistently(
            lambda: super(PatientTask, self).on_replace(sig), lambda error: isinstance(error, _UNPUBLISHED)
        )


class ProvisionerTask(PatientTask):
    """A task of the wire contract.

    Celery's own signature check is off: it only works for senders that have this code, and its message names no
    argument's fault. `worker.requests` checks instead.
    """

    typing = False
    # Errors of the tree are answers, not accidents: logged in one line, without a traceback.
    throws = (ProvisionerError,)
    max_retries = None
    # Celery shows 1,024 characters of a result, which an image with many layers fills before its rootfs is named.
    resultrepr_maxsize = 16_384

    @override
    def __call__(self, *args: object, **kwargs: object) -> Any:
        """Answer as before what was answered before; one GET.

        A task is delivered again when its worker died, or stood still, between storing the answer and acknowledging. To
        act again would bring back a container that its scheduler has destroyed since.
        """
        if self.request.id and not self.request.ignore_result:
            known = self.backend.get_task_meta(self.request.id, cache=False)
            if known["status"] == SUCCESS:
                return known["result"]
        return super().__call__(*args, **kwargs)

    @property
    def provisioner(self) -> Provisioner:
        """This process's provisioner."""
        return process_provisioner(process_settings())

    def keywords_only(self, arguments: tuple[object, ...]) -> None:
        """Refuse positional arguments, whose order is nobody's contract."""
        if arguments:
            reason = "this task takes keyword arguments only"
            raise InvalidArgument(argument="args", value=repr(arguments)[:160], reason=reason)

    def run_here_or_forward(self, act: Callable[[Provisioner], Answer | Elsewhere]) -> Answer:
        """Act on this node; send the task on if it belongs to another; retry what may pass."""
        try:
            answer = act(self.provisioner)
        except TransientError as error:
            self._retry(error)
        except PermanentError:
            raise
        except Exception:
            # Nobody foresaw it, so nothing has been undone and no retry is known to help.
            self.give_up(self.request.kwargs)
            raise
        if isinstance(answer, Elsewhere):
            self.forward(answer.node)
        return answer

    def forward(self, node: str) -> NoReturn:
        """Publish this task to the node's queue under the same id, and end without a result here."""
        if not process_nodes(process_settings()).is_known(node):
            if not (epoch := self.provisioner.node.epoch.join()).is_settled:
                self._retry(epoch.incomplete())
            raise InvalidArgument(argument="node", value=node, reason="no node of this name ever registered")
        signature = self.signature(kwargs=self.request.kwargs).set(queue=queue_of_node(node))
        raise self.replace(signature)

    def _retry(self, error: TransientError) -> NoReturn:
        settings = process_settings()
        if self.request.retries >= settings.max_retries:
            self.give_up(self.request.kwargs)
            raise error
        delay = retry_delay(
            self.request.retries, base=settings.retry_base_seconds, longest=settings.retry_max_seconds, error=error
        )
        self.note_failure(self.request.kwargs, error, delay)
        raise self.retry(exc=error, countdown=delay)

    def note_failure(self, keywords: Mapping[str, Any], error: TransientError, delay: float) -> None:
        """Show a failure that will be retried; by default nowhere but in the task's state."""

    def give_up(self, keywords: Mapping[str, Any]) -> None:
        """Undo what is left after the last attempt; by default nothing."""

    def reporter(self) -> Callable[[Progress], None]:
        """Return a function that shows progress in this task's state, at most twice a second, from any thread."""
        task_id, lock = self.request.id, threading.Lock()
        due = time.monotonic()

        def report(progress: Progress) -> None:
            nonlocal due
            with lock:
                if time.monotonic() < due:
                    return
                due = time.monotonic() + _PROGRESS_INTERVAL_SECONDS
            self.update_state(task_id=task_id, state=PROGRESS, meta=asdict(progress))

        return report


def persistently(publish: Callable[[], Answer], is_unpublished: Callable[[Exception], bool]) -> Answer:
    """Publish the message that follows a task's, again and again while what is raised says that it is not published.

    To give the task's own message back instead would help nobody: whoever took it next would wait for the same.
    """
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return publish()
        except Exception as error:
            if not is_unpublished(error):
                raise
            _log.warning("what follows this task waits to be published: %s", error)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def retry_delay(retries: int, *, base: float, longest: float, error: TransientError) -> float:
    """Return the seconds to wait: doubled each time, half of it jitter, never less than the server asked for."""
    backoff = min(longest, base * 2.0**retries)
    jittered = backoff * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
    return max(jittered, error.retry_after_seconds or 0.0)
