# SPDX-License-Identifier: Apache-2.0
"""Commands that only look: containers, nodes and locks in Redis, images in the store of this machine."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.console import Group
from rich.text import Text

from worker.cli.cluster import Cluster, pass_cluster
from worker.cli.exits import Failure
from worker.cli.output import emit, json_option
from worker.cli.stored import StoredImageView, read_documents, read_store
from worker.cli.tables import (
    container_usage_table,
    containers_table,
    facts,
    images_table,
    lock_table,
    nodes_table,
    usage_table,
)
from worker.cli.usage import measure_containers, measure_node
from worker.container_id import ContainerId
from worker.container_view import ContainerState, ContainerView
from worker.errors import InvalidArgument
from worker.linux.disk_usage import DiskMeter
from worker.lock import LockView, Party
from worker.oci.reference import ImageSource
from worker.paths import WorkPaths

_SHORTEST_DIGEST = 4


@click.command()
@click.option("--state", type=click.Choice([state.value for state in ContainerState]), help="Only those in this state.")
@click.option("--node", metavar="NODE", help="Only those on this node.")
@json_option
@pass_cluster
def ps(cluster: Cluster, state: str | None, node: str | None, as_json: bool) -> None:
    """List containers."""
    views = list(cluster.containers.list(state=ContainerState(state) if state else None, node=node))
    document = {"containers": [view.to_document() for view in views]}
    emit(document, as_json=as_json, render=lambda: containers_table(views))


@click.command()
@json_option
@pass_cluster
def nodes(cluster: Cluster, as_json: bool) -> None:
    """List nodes, alive and gone, and how many tasks wait for each."""
    statuses = cluster.nodes.all()
    tasks = {status.view.name: cluster.backlog(status.view.name).count() for status in statuses}
    document = {"nodes": [status.to_document() | {"tasks": tasks[status.view.name]} for status in statuses]}
    emit(document, as_json=as_json, render=lambda: nodes_table(statuses, tasks))


@click.command()
@json_option
@pass_cluster
@click.option("--shorten", metavar="OWNER", help="Let this stuck holder's lease run out, and show what is then.")
@click.option("--seconds", type=click.FloatRange(min=0), default=0.0, show_default=True, help="How soon.")
def lock(cluster: Cluster, as_json: bool, shorten: str | None, seconds: float) -> None:
    """Show who holds the lock of each store and who waits for it.

    What a holder was promised already, at most one lease, is not taken from it: it may be acting on it.
    """
    if shorten is not None:
        _shorten(cluster, shorten, seconds)
    store_ids = sorted({status.view.store_id for status in cluster.nodes.all()})
    views = {store_id: cluster.lock(store_id).snapshot() for store_id in store_ids}
    document = {"locks": [{"store": store_id, **_lock_document(view)} for store_id, view in views.items()]}
    tables = Group(*(lock_table(store_id, view) for store_id, view in views.items()))
    emit(document, as_json=as_json, render=lambda: tables if views else "no node was ever seen")


def _shorten(cluster: Cluster, owner: str, seconds: float) -> None:
    store_ids = {status.view.store_id for status in cluster.nodes.all()}
    if all(cluster.lock(store_id).shorten(owner, seconds) is None for store_id in sorted(store_ids)):
        raise Failure(f"{owner} holds no lock")


def _lock_document(view: LockView) -> dict[str, Any]:
    return {
        "token": view.token,
        "quarantine_seconds": view.quarantine_seconds,
        "holders": _parties(view.holders),
        "waiters": _parties(view.waiters),
    }


def _parties(parties: Sequence[Party]) -> list[dict[str, Any]]:
    return [
        {
            "owner": party.owner,
            "mode": party.mode.value,
            "age_seconds": party.age_seconds,
            "remaining_seconds": party.remaining_seconds,
        }
        for party in parties
    ]


@click.command()
@json_option
@pass_cluster
def images(cluster: Cluster, as_json: bool) -> None:
    """List the images in the store of this machine, PROVISIONER_STORE_DIR; Redis is not asked."""
    store = read_store(cluster.settings.store_dir)
    emit(store.to_document(), as_json=as_json, render=lambda: images_table(store))


@click.command()
@click.argument("container", required=False)
@json_option
@pass_cluster
def du(cluster: Cluster, container: str | None, as_json: bool) -> None:
    """Show what containers and images take of this machine's disk; with CONTAINER, it and those nested in it.

    PROVISIONER_WORK_DIR and PROVISIONER_STORE_DIR are measured, block by block; Redis is not asked.
    """
    if container is None:
        usage = measure_node(cluster.settings)
        emit(usage.to_document(), as_json=as_json, render=lambda: usage_table(usage))
    else:
        _show_container_usage(cluster, ContainerId.parse(container), as_json=as_json)


def _show_container_usage(cluster: Cluster, container_id: ContainerId, *, as_json: bool) -> None:
    meter = DiskMeter()
    containers = measure_containers(WorkPaths(cluster.settings.work_dir.resolve()), meter, only=container_id)
    if not containers:
        raise Failure(f"there is no container {container_id} in {cluster.settings.work_dir}")
    document = {"containers": [asdict(each) for each in containers], "unreadable": meter.unreadable}
    emit(document, as_json=as_json, render=lambda: container_usage_table(containers))


@click.command()
@click.argument("subject", metavar="CONTAINER|IMAGE")
@json_option
@pass_cluster
def inspect(cluster: Cluster, subject: str, as_json: bool) -> None:
    """Show all about one container, or about one image in the store of this machine.

    An image is named by reference, by digest or by the beginning of one. A container goes before an image of its name.
    """
    container = _find_container(cluster, subject)
    if container is not None:
        _show_container(container, as_json=as_json)
    else:
        _show_image(cluster, _find_image(cluster, subject), as_json=as_json)


def _find_container(cluster: Cluster, subject: str) -> ContainerView | None:
    try:
        container_id = ContainerId.parse(subject)
    except InvalidArgument:
        return None
    return cluster.containers.get(container_id)


def _show_container(view: ContainerView, *, as_json: bool) -> None:
    infos = {name: json.loads(text) for name, text in view.infos.items()}
    document = {"kind": "container", **view.to_document(), "infos": infos}
    hidden = {"docker_manifest": None, "appc_manifest": None}
    shown = {name: {**info, **hidden, "layers": len(info["layers"])} for name, info in infos.items()}
    parts = [facts(view.to_document()), *(part for info in shown.values() for part in (Text(), facts(info)))]
    emit(document, as_json=as_json, render=lambda: Group(*parts))


def _find_image(cluster: Cluster, subject: str) -> StoredImageView:
    try:
        store = read_store(cluster.settings.store_dir)
    except InvalidArgument as error:
        raise Failure(f"there is no container {subject}, and no images to look at: {error}") from error
    digest = subject if len(subject.partition(":")[2] or subject) >= _SHORTEST_DIGEST else ""
    found = store.find(digest, _normalised(cluster, subject))
    if not found:
        raise Failure(f"there is no container {subject}, and no such image in {store.store_dir}")
    if len({image.digest for image in found}) > 1:
        digests = ", ".join(image.digest for image in found)
        raise Failure(f"{subject} names several images: {digests}")
    return found[0]


def _normalised(cluster: Cluster, subject: str) -> str:
    try:
        return ImageSource.parse(subject, default_registry=cluster.settings.default_registry).normalised
    except InvalidArgument:
        return subject


def _show_image(cluster: Cluster, image: StoredImageView, *, as_json: bool) -> None:
    documents = read_documents(cluster.settings.store_dir, image.digest)
    config = documents["config"].get("config") or {}
    shown = {
        **image.to_document(),
        "references": [f"{each.reference} ({each.platform})" for each in image.references],
        "owners": [f"{owner.node}: {owner.container_id or 'a pull'} {owner.name}" for owner in image.owners],
        "config": {key: value for key, value in config.items() if value},
    }
    document = {"kind": "image", **image.to_document(), **documents}
    emit(document, as_json=as_json, render=lambda: facts(shown))
