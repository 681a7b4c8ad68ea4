# SPDX-License-Identifier: Apache-2.0
"""`provisioner.recover`, and the same at a worker's start."""

from collections.abc import Mapping
from typing import Any

from tasks.fanout import FanOutTask, run_on
from worker.celery import app
from worker.errors import StateUnavailable
from worker.linux.flock import locked
from worker.provisioner import Elsewhere, Provisioner
from worker.requests import RecoverRequest
from worker.runtime import process_nodes
from worker.settings import process_settings


@app.task(bind=True, base=FanOutTask, name="provisioner.recover")  # type: ignore[untyped-decorator]
def recover(self: FanOutTask, *arguments: object, **keywords: object) -> dict[str, Any]:
    """Reconcile a node with its disk, or every live node with its own."""
    self.keywords_only(arguments)
    if RecoverRequest.parse(keywords).node is None:
        live = [status.view.name for status in process_nodes(process_settings()).all() if status.is_live]
        run_on(self, live, keywords, key="nodes")
    return {"nodes": [self.run_here_or_forward(lambda provisioner: recover_node(provisioner, keywords))]}


def recover_node(
    provisioner: Provisioner, keywords: Mapping[str, object], *, is_start: bool = False
) -> dict[str, Any] | Elsewhere:
    """Recover this node between the marks that tell the cluster when its view of the node can be trusted.

    Raises:
        StateUnavailable: Redis lost its data meanwhile, so that what was shown is gone; again, please.
    """
    nodes, name = process_nodes(process_settings()), provisioner.node.name
    if keywords.get("node") not in (None, name):
        return Elsewhere(node=str(keywords["node"]))
    # One after the other: each takes the mark off, and the last one would never come to its end.
    with locked(provisioner.node.work.recovery_lock_path, exclusive=True):
        token = nodes.begin_recovery(name)
        answer = provisioner.recover(keywords, is_start=is_start)
        is_marked = nodes.mark_recovered(name, token=token)
    if not is_marked:
        raise StateUnavailable(reason="it lost its data during the recovery, or another recovery began")
    return answer
