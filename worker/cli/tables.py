# SPDX-License-Identifier: Apache-2.0
"""What people see: values in, rich tables out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from worker.cli.findings import Finding, Verdict
from worker.cli.output import age_text, short_digest, size_text
from worker.cli.stored import StoredImageView, StoreView
from worker.cli.usage import ContainerUsage, NodeUsage
from worker.container_view import ContainerState, ContainerView
from worker.lock import LockView
from worker.nodes import NodeStatus
from worker.transport.letters import Letter

_STATE_STYLES = {
    ContainerState.PROVISIONING: "yellow",
    ContainerState.PROVISIONED: "green",
    ContainerState.DESTROYING: "red",
    ContainerState.HOLDER: "dim",
}


_USAGE_SIZES = ("layers", "on disk", "exclusive", "shared", "ephemeral")
_VERDICT_STYLES = {Verdict.GOOD: "green", Verdict.NOTE: "yellow", Verdict.WRONG: "bold red"}


def _table(*columns: str, right: Iterable[str] = ()) -> Table:
    """Start a table; cells fold rather than being cut, since people copy ids and paths from them."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold", justify="right" if name in set(right) else "left")
    return table


def _titled(title: str, table: Table) -> Group:
    """Put a line above a table, or in the place of an empty one; a table's own title would be cut to its width."""
    return Group(Text(title, style="bold"), *([table] if table.row_count else ()))


def facts(document: Mapping[str, Any]) -> Table:
    """One object: its keys and values below each other, the empty ones left out."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in document.items():
        if value not in (None, "", [], (), {}):
            table.add_row(Text(key), Text(_line(value)))
    return table


def _line(value: object) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {item}" for key, item in value.items())
    return "\n".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def provisioned_table(info: Mapping[str, Any]) -> Table:
    """A ProvisionInfo."""
    hidden = {"layers": len(info["layers"]), "docker_manifest": None, "appc_manifest": None}
    return facts({**info, **hidden})


def containers_table(views: Sequence[ContainerView]) -> Group:
    """Containers, as `ps` lists them."""
    table = _table("container", "state", "node", "rootfs", "changed", "note")
    for view in views:
        state = Text(view.state, style=_STATE_STYLES[view.state])
        rootfses = Text("\n".join(f"{name}: {image}" for name, image in {**view.images, **view.pending}.items()))
        table.add_row(str(view.container_id), state, view.node, rootfses, age_text(view.changed_ms), Text(_note(view)))
    return _titled(_counted(len(views), "container"), table)


def _note(view: ContainerView) -> str:
    if view.last_error:
        return f"attempt {view.attempts} failed: {view.last_error}"
    return f"waits for {view.waits_for}" if view.waits_for else ""


def nodes_table(statuses: Sequence[NodeStatus], tasks: Mapping[str, int]) -> Table:
    """Nodes ever seen, with the tasks that wait for each."""
    columns = ("node", "state", "seen", "backends", "store", "free", "tasks", "version")
    table = _table(*columns, right=["free", "tasks"])
    for status in statuses:
        state = Text("live", style="green") if status.is_live else Text("gone", style="red")
        if status.is_live and not status.is_recovered:
            state = Text("recovering", style="yellow")
        view = status.view
        store, free = view.store_id[:12], size_text(view.free_bytes)
        waiting = str(tasks.get(view.name, 0))
        ages = age_text(status.seen_ms)
        table.add_row(view.name, state, ages, " ".join(view.backends), store, free, waiting, view.version)
    return table


def forgotten_table(document: Mapping[str, Any]) -> Group:
    """What went with a node that was forgotten."""
    table = _table("task", "id", "outcome")
    for task in document["tasks"]:
        table.add_row(Text(task["task"]), Text(task["task_id"]), task["outcome"])
    containers = _counted(len(document["containers"]), "container")
    title = f"node {document['node']} is forgotten, with {containers} and {_counted(len(document['tasks']), 'task')}"
    if document["released"]:
        title += f"; {_counted(document['released'], 'image')} of this store no longer kept for it"
    return _titled(title, table)


def lock_table(store_id: str, view: LockView) -> Group:
    """Who holds the lock of a store and who waits for it, first come first."""
    quarantine = f", quarantined for {view.quarantine_seconds:.0f} s" if view.quarantine_seconds else ""
    title = f"lock of store {store_id[:12]}: {_summary(view)}, token {view.token}{quarantine}"
    table = _table("", "mode", "owner", "for", "lease left", right=["for", "lease left"])
    for role, parties in (("holds", view.holders), ("waits", view.waiters)):
        for party in parties:
            ages = f"{party.age_seconds:.1f} s", f"{party.remaining_seconds:.1f} s"
            table.add_row(role, party.mode.value, Text(party.owner), *ages)
    return _titled(title, table)


def letters_table(letters: Sequence[Letter]) -> Group:
    """Messages that were laid aside, the oldest first."""
    table = _table("letter", "laid aside", "queue", "task", "arguments", "reason")
    for letter in letters:
        task = f"{letter.task}\n{letter.task_id}" if letter.task else "(not readable)"
        texts = (Text(each) for each in (letter.queue, task, letter.arguments, letter.reason))
        table.add_row(letter.letter_id[:12], age_text(letter.at_ms), *texts)
    return _titled(_counted(len(letters), "dead letter"), table)


def _summary(view: LockView) -> str:
    return f"{len(view.holders)} hold, {len(view.waiters)} wait" if view.holders or view.waiters else "free"


def images_table(store: StoreView) -> Group:
    """The images of a store, with a sum in which shared layers count once."""
    summary = f"{_counted(len(store.images), 'image')}, {_counted(store.layers, 'layer')}"
    title = f"store {store.store_dir}: {summary}, {size_text(store.disk_bytes)}"
    right = ["layers", "on disk", "exclusive", "shared", "used by"]
    table = _table("image", "digest", "layers", "on disk", "exclusive", "shared", "used by", "state", right=right)
    for image in store.images:
        references = Text("\n".join(reference.reference for reference in image.references) or "(no reference)")
        shared_bytes = image.disk_bytes - image.exclusive_bytes
        sizes = (size_text(each) for each in (image.disk_bytes, image.exclusive_bytes, shared_bytes))
        counts = str(len(image.layers)), *sizes, str(len(image.owners))
        table.add_row(references, short_digest(image.digest), *counts, _state(image))
    return _titled(title, table)


def _state(image: StoredImageView) -> Text:
    if image.error:
        return Text(image.error, style="red")
    if not image.missing:
        return Text("complete", style="green")
    return Text("misses " + " ".join(short_digest(layer) for layer in image.missing), style="yellow")


def stores_pruned_table(stores: Sequence[Mapping[str, Any]], *, is_dry_run: bool) -> Table:
    """What a prune took, or would take, from each store."""
    verb = "would be freed" if is_dry_run else "freed"
    table = _table("store", "node", "images", "layers", verb, "others waited", right=["images", "layers", verb])
    for store in stores:
        counts = str(len(store["images"])), str(len(store["layers"])), size_text(store["bytes_freed"])
        table.add_row(store["store"][:12], store["node"], *counts, f"{store['exclusive_ms']:.1f} ms")
    return table


def stores_verified_table(stores: Sequence[Mapping[str, Any]]) -> Group:
    """What a verify found in each store, and what of it was repaired."""
    return Group(*(_verified(store) for store in stores))


def _verified(store: Mapping[str, Any]) -> Group:
    read = f"{_counted(store['checked_layers'], 'layer')}, {size_text(store['checked_bytes'])}"
    counts = f"{_counted(len(store['problems']), 'problem')}, {len(store['repaired'])} repaired"
    table = _table("", "kind", "subject", "detail")
    for word, style, key in (("repaired", "green", "repaired"), ("wrong", "bold red", "problems")):
        for problem in store[key]:
            table.add_row(Text(word, style=style), problem["kind"], Text(problem["subject"]), Text(problem["detail"]))
    return _titled(f"store {store['store'][:12]}, node {store['node']}: {read} read; {counts}", table)


def findings_table(findings: Sequence[Finding]) -> Table:
    """What a doctor saw."""
    table = _table("", "subject", "detail")
    for finding in findings:
        verdict = Text(finding.verdict, style=_VERDICT_STYLES[finding.verdict])
        table.add_row(verdict, Text(finding.subject), Text(finding.detail))
    return table


def nodes_recovered_table(nodes: Sequence[Mapping[str, Any]]) -> Table:
    """What each node found and did."""
    table = _table("node", "kept", "remounted", "destroyed", "leftovers cleaned")
    for node in nodes:
        lists = (Text("\n".join(node[key]) or "-") for key in ("kept", "remounted", "destroyed"))
        table.add_row(node["node"], *lists, str(node["cleaned"]))
    return table


def usage_table(usage: NodeUsage) -> Group:
    """What a node's containers and images take."""
    images = _table("image", "digest", "layers", "on disk", "exclusive", "shared", right=_USAGE_SIZES)
    for image in usage.images:
        sizes = (size_text(each) for each in (image.disk_bytes, image.exclusive_bytes, image.shared_bytes))
        references = Text("\n".join(image.references) or "(no reference)")
        images.add_row(references, short_digest(image.digest), str(len(image.layers)), *sizes)
    others = {
        "layers of no image": usage.unused_layers_bytes,
        "pulls under way": usage.staging_bytes,
        "kept for pulls that go on": usage.partial_bytes,
        "trash": usage.trash_bytes,
        "all together, shared layers once": usage.disk_bytes,
    }
    lines = facts({name: size_text(size) for name, size in others.items() if size})
    title = f"store {usage.store_dir}: {_counted(len(usage.images), 'image')}"
    return Group(container_usage_table(usage.containers), _titled(title, images), lines, _unreadable(usage.unreadable))


def container_usage_table(containers: Sequence[ContainerUsage]) -> Group:
    """What containers take, a line for each rootfs."""
    table = _table("container", "rootfs", "image", "backend", "on disk", "ephemeral", right=_USAGE_SIZES)
    for container in containers:
        for rootfs in container.rootfses:
            sizes = rootfs.disk_bytes, sum(volume.disk_bytes for volume in rootfs.ephemeral_volumes)
            names = container.container_id, rootfs.name, rootfs.image or container.error, rootfs.backend
            table.add_row(*map(Text, names), *map(size_text, sizes))
    total = size_text(sum(container.disk_bytes for container in containers))
    return _titled(f"{_counted(len(containers), 'container')}, {total}", table)


def _unreadable(count: int) -> Text:
    text = f"directories that may not be read, so what is in them is not counted: {count}"
    return Text(text if count else "", style="yellow")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
