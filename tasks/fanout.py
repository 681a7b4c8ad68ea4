# SPDX-License-Identifier: Apache-2.0
"""Run a task on several nodes and answer with all their entries, without a worker waiting for any of them.

The task replaces itself by a chord: the same task once per node, and `provisioner.gather`, internal to this module,
which takes over the caller's task id and so its AsyncResult. A part that fails is an answer to `gather`: Celery would
let the whole fail at once, by a name of its own, and forget what the other nodes did.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from celery import chord
from typing_extensions import override

from tasks.base import ProvisionerTask
from worker.celery import app
from worker.errors import ImageNotFound, NodesFailed, ProvisionerError
from worker.settings import process_settings, queue_of_node

_FAILURE = "failure"


class FanOutTask(ProvisionerTask):
    """A task that may run as a part of itself."""

    @override
    def __call__(self, *args: object, **kwargs: object) -> Any:
        """Answer; as a part also with the error it failed with."""
        try:
            return super().__call__(*args, **kwargs)
        except ProvisionerError as error:
            if self.request.chord is None:
                raise
            return {_FAILURE: {"node": process_settings().node, "error": type(error).__name__, "reason": str(error)}}


def run_on(task: FanOutTask, nodes: Sequence[str], keywords: Mapping[str, object], *, key: str) -> None:
    """Replace the task by one per node; return when this node is the only one."""
    if set(nodes) <= {process_settings().node}:
        return
    header = [
        task.signature(kwargs={**keywords, "node": node}).set(queue=queue_of_node(node)) for node in sorted(nodes)
    ]
    raise task.replace(chord(header, gather.s(key=key)))


@app.task(name="provisioner.gather", throws=(ProvisionerError,))  # type: ignore[untyped-decorator]
def gather(answers: Sequence[Mapping[str, Any]], *, key: str) -> dict[str, Any]:
    """Join the nodes' answers into one; an image that some of them do not have is no failure of theirs.

    Raises:
        NodesFailed: Names each that failed; the others have done their part.
    """
    failures = [answer[_FAILURE] for answer in answers if _FAILURE in answer]
    is_somewhere = len(failures) < len(answers)
    are_absences = all(failure["error"] == ImageNotFound.__name__ for failure in failures)
    if failures and not (are_absences and is_somewhere):
        texts = sorted(f"{each['node']}: {each['error']}: {each['reason']}" for each in failures)
        raise NodesFailed(failed=len(failures), asked=len(answers), failures="; ".join(texts))
    return {key: [entry for answer in answers for entry in answer.get(key, ())]}
