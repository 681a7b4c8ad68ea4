# SPDX-License-Identifier: Apache-2.0
"""`provisioner.pull`, `provisioner.prune` and `provisioner.verify`."""

from collections.abc import Iterable, Mapping
from typing import Any

from tasks.base import ProvisionerTask
from tasks.fanout import FanOutTask, run_on
from worker.celery import app
from worker.nodes import NodeView
from worker.requests import PruneRequest, VerifyRequest
from worker.runtime import process_nodes
from worker.settings import process_settings


@app.task(bind=True, base=ProvisionerTask, name="provisioner.pull")  # type: ignore[untyped-decorator]
def pull(self: ProvisionerTask, *arguments: object, **keywords: object) -> dict[str, Any]:
    """Bring an image into a node's store."""
    self.keywords_only(arguments)
    return self.run_here_or_forward(lambda node: node.pull(keywords, on_progress=self.reporter()))


@app.task(bind=True, base=FanOutTask, name="provisioner.prune")  # type: ignore[untyped-decorator]
def prune(self: FanOutTask, *arguments: object, **keywords: object) -> dict[str, Any]:
    """Free what nothing uses: in one node's store, or once in every store that a live node has."""
    self.keywords_only(arguments)
    if PruneRequest.parse(keywords).node is None:
        _run_per_store(self, keywords)
    return {"stores": [self.run_here_or_forward(lambda node: node.prune(keywords))]}


@app.task(bind=True, base=FanOutTask, name="provisioner.verify")  # type: ignore[untyped-decorator]
def verify(self: FanOutTask, *arguments: object, **keywords: object) -> dict[str, Any]:
    """Compare what a node's store holds, or once every store, with what it must be, and repair it if wanted."""
    self.keywords_only(arguments)
    if VerifyRequest.parse(keywords).node is None:
        _run_per_store(self, keywords)
    return {"stores": [self.run_here_or_forward(lambda node: node.verify(keywords, on_progress=self.reporter()))]}


def _run_per_store(task: FanOutTask, keywords: Mapping[str, object]) -> None:
    """Replace the task by one per store; return when this node's is the only one."""
    settings = process_settings()
    stores = process_nodes(settings).stores().values()
    run_on(task, [_one_of(views, settings.node) for views in stores], keywords, key="stores")


def _one_of(views: Iterable[NodeView], here: str) -> str:
    """Choose a node for a store: this one where it can, for it need not be asked."""
    names = {view.name for view in views}
    return here if here in names else min(names)
