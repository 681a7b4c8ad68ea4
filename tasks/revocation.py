# SPDX-License-Identifier: Apache-2.0
"""What becomes of a provision that its caller revokes: nothing of it is left.

Celery has two ways. `revoke` drops a task that has not begun, or waits for its next attempt; one that runs goes on, and
its rootfs is there in the end. `revoke(terminate=True)` also kills the process that runs it, wherever it is. Either way
the worker's main process hears of it and sends `provisioner.take_back`, internal to this module, to its own queue.

A worker that is killed before it has sent it undoes the rest when it starts again, as after any crash. Only the workers
that hear of a revocation know of it: one that starts later runs the task, unless it was given `--statedb`. A destroy,
prune or recover that is terminated is finished by the next one, as after any crash; no destroy is taken back.
"""

import logging
from typing import Any

from celery.signals import task_revoked

from tasks.base import ProvisionerTask
from tasks.rootfs import provision
from worker.celery import app
from worker.settings import process_settings

_log = logging.getLogger(__name__)


@app.task(bind=True, base=ProvisionerTask, name="provisioner.take_back", ignore_result=True)  # type: ignore[untyped-decorator]
def take_back(self: ProvisionerTask, **keywords: object) -> None:
    """Undo what a revoked provision began, on the node where it began."""
    self.run_here_or_forward(lambda node: node.take_back(keywords))


@task_revoked.connect  # type: ignore[untyped-decorator]
def undo_revoked(sender: Any, request: Any, **_: object) -> None:
    """Send a revoked provision's keywords to this node's queue; runs in the worker's main process."""
    if sender.name == provision.name:
        _log.info("provision %s was revoked: what it began is undone", request.id)
        take_back.apply_async(kwargs=request.kwargs, queue=process_settings().node_queue)
