# SPDX-License-Identifier: Apache-2.0
"""`provisioner forget`: a node that will not come back, its containers, and the tasks that wait for it."""

from typing import Any

import click
from celery.app.task import Context

from worker.cli.cluster import Cluster, pass_cluster
from worker.cli.exits import Failure
from worker.cli.output import emit, json_option
from worker.cli.tables import forgotten_table
from worker.errors import NodeForgotten
from worker.paths import StorePaths
from worker.settings import PROVISION_QUEUE
from worker.store.images import Images
from worker.transport.backlog import Backlog, Waiting

_UNREADABLE = "(not readable)"


@click.command()
@click.argument("node")
@click.option("--move", is_flag=True, help="Send the tasks to the other nodes instead of failing them.")
@click.option("--release", is_flag=True, help="Let prune take what it keeps in the store of this machine.")
@json_option
@pass_cluster
def forget(cluster: Cluster, node: str, move: bool, release: bool, as_json: bool) -> None:
    """Forget a node that is gone, the containers it had, and the tasks that wait for it.

    Whoever waits for one of these tasks is told that the node is gone, or with --move gets the answer of another node.
    If the node comes back all the same, it shows what it has. What its containers need stays in a store that it shared
    with others; --release, on one of these others, gives that up.
    """
    status = {each.view.name: each for each in cluster.nodes.all()}.get(node)
    if status is not None and status.is_live:
        raise Failure(f"node {node} is alive; stop its worker first")
    if release and not cluster.settings.store_dir.is_dir():
        raise Failure(f"there is no store at {cluster.settings.store_dir}")
    backlog = cluster.backlog(node)
    seen = list(cluster.containers.list(node=node))
    waiting = backlog.all()
    if status is None and not seen and not waiting:
        raise Failure(f"there is no node {node}")
    # In this order: as long as the node has containers, tasks are forwarded to it.
    containers = cluster.containers.forget_absent(seen, kept_ids=())
    cluster.nodes.forget(node)
    tasks = [_settle(cluster, backlog, node, message, move=move) for message in backlog.all()]
    released = Images(StorePaths(cluster.settings.store_dir)).release(node) if release else 0
    document = {"node": node, "containers": [str(each) for each in containers], "tasks": tasks, "released": released}
    emit(document, as_json=as_json, render=lambda: forgotten_table(document))


def _settle(cluster: Cluster, backlog: Backlog, node: str, message: Waiting, *, move: bool) -> dict[str, Any]:
    """Move or fail one task, and only then take its message out: killed in between, it is done twice and not lost."""
    if not message.task:
        outcome = "left"
    elif move and _can_move(message):
        cluster.app.send_task(
            message.task, kwargs=_anywhere(message, node), task_id=message.task_id, queue=PROVISION_QUEUE
        )
        outcome = "moved"
    else:
        request = Context(message.headers, **message.embed, task=message.task)
        cluster.app.backend.mark_as_failure(message.task_id, NodeForgotten(node=node), request=request)
        outcome = "failed"
    if outcome != "left":
        backlog.remove(message)
    return {"task": message.task or _UNREADABLE, "task_id": message.task_id, "outcome": outcome}


def _can_move(message: Waiting) -> bool:
    """Tell whether another node can do it: not what is one node's part of a task for all."""
    return message.task in {"provisioner.provision", "provisioner.destroy", "provisioner.pull"}


def _anywhere(message: Waiting, node: str) -> dict[str, Any]:
    keywords = dict(message.keywords)
    if keywords.get("node") == node:
        del keywords["node"]
    return keywords
