# SPDX-License-Identifier: Apache-2.0
"""Run a task on several nodes and answer with all their entries, without a worker waiting for any of them.

The task replaces itself by a chord: the same task once per node, and `provisioner.gather`, internal to this module,
which takes over the caller's task id and so its AsyncResult.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from celery import chord

from tasks.base import ProvisionerTask
from worker.celery import app
from worker.settings import process_settings, queue_of_node


def run_on(task: ProvisionerTask, nodes: Sequence[str], keywords: Mapping[str, object], *, key: str) -> None:
    """Replace the task by one per node; return when this node is the only one."""
    if set(nodes) <= {process_settings().node}:
        return
    header = [
        task.signature(kwargs={**keywords, "node": node}).set(queue=queue_of_node(node)) for node in sorted(nodes)
    ]
    raise task.replace(chord(header, gather.s(key=key)))


@app.task(name="provisioner.gather")  # type: ignore[untyped-decorator]
def gather(answers: Sequence[Mapping[str, Any]], *, key: str) -> dict[str, Any]:
    """Join the nodes' answers into one."""
    return {key: [entry for answer in answers for entry in answer[key]]}
