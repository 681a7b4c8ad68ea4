# SPDX-License-Identifier: Apache-2.0
"""recover: reconcile the node with its disk after a crash, a reboot, or the loss of Redis.

The disk decides. What a dead worker left is finished or undone, rootfses are mounted again with what was written into
them, Redis is told what is here, and refs are made to match the records.
"""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from worker.container_id import ContainerId
from worker.container_view import ContainerView, RestoreKind
from worker.errors import LeaseLost, LockTimeout, ProvisionerError, RecordCorrupt, StateUnavailable, ViewIncomplete
from worker.linux.flock import locked
from worker.oci.digest import Digest
from worker.records import ContainerRecord
from worker.requests import RecoverRequest
from worker.store.images import RefOwner
from worker.store.staging import sweep_staging
from worker.store.trash import empty_trash
from worker.verbs.destroy import destroy_all
from worker.verbs.home import Home, containers_on_disk, existing, nested_ids
from worker.verbs.node import Elsewhere, Node
from worker.verbs.remount import bring_back, show
from worker.verbs.undo import drop_stale_refs, take_down

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class NodeRecovered:
    """What one node found and did.

    Attributes:
        node: Its name.
        kept: Containers that were in order.
        remounted: Containers of which a rootfs had to be mounted again.
        destroyed: Containers that nobody knows any more.
        cleaned: How many leftovers of dead workers went: staging directories, half-made rootfses, refs, states.
    """

    node: str
    kept: list[str] = field(default_factory=list)
    remounted: list[str] = field(default_factory=list)
    destroyed: list[str] = field(default_factory=list)
    cleaned: int = 0


def recover(node: Node, request: RecoverRequest, *, is_start: bool = False) -> NodeRecovered | Elsewhere:
    """Make mounts, records, refs and Redis agree.

    One container's trouble is logged and does not keep the others from recovering. At the start of a node's only worker
    (`is_start`) no provision of it can be under way, so those that Redis shows without anything on disk are forgotten.
    Effect: safe to repeat, and beside provisions and destroys: whatever somebody works on holds a flock and is left.
    Locking: one recover per node at a time; prune waits for it.

    Raises:
        ViewIncomplete: Redis, from an old copy, shows a container of this node on one that has yet to recover. All else
            is done; again, please.
    """
    if request.node not in (None, node.name):
        return Elsewhere(node=str(request.node))
    known = None if request.known_container_ids is None else set(request.known_container_ids)
    result = NodeRecovered(node=node.name)
    postponed: list[ViewIncomplete] = []
    with locked(node.work.node_lock_path, exclusive=True):
        seen = _forgettable(node, is_start=is_start)
        result.cleaned += sweep_staging(node.store.paths.staging_dir)
        node.store.partials.sweep(unused_seconds=node.settings.resume_keep_seconds)
        for container_id in containers_on_disk(node.work):
            with _reported(container_id, postponed):
                if known is not None and not _is_known(container_id, known):
                    _destroy(node, container_id, result)
                else:
                    _recover_one(node, container_id, result)
        result.cleaned += drop_stale_refs(node)
        result.cleaned += node.image_mounts.release_unneeded(lambda digest, user: _stands_on(node, digest, user))
        result.cleaned += _forget_absent(node, seen)
        empty_trash(node.work.trash_dir)
        empty_trash(node.store.paths.trash_dir)
    if postponed:
        raise postponed[0]
    return result


def _forgettable(node: Node, *, is_start: bool) -> list[ContainerView]:
    """List what Redis shows of this node, without provisions under way: those may have nothing on disk yet.

    None is under way at a worker's start, and none that was when Redis may have lost data can end well.
    """
    began_ms = node.epoch.join().began_ms
    shown = node.containers.list(node=node.name)
    return [view for view in shown if is_start or not view.pending or view.changed_ms < began_ms]


def _forget_absent(node: Node, seen: Collection[ContainerView]) -> int:
    """Make Redis forget containers that are not on disk and have not changed since the recover began."""
    return len(node.containers.forget_absent(seen, kept_ids=frozenset(containers_on_disk(node.work))))


def _is_known(container_id: ContainerId, known: Collection[ContainerId]) -> bool:
    """A container is known by itself or because one nested in it is."""
    return any(other.parts[: len(container_id.parts)] == container_id.parts for other in known)


def _destroy(node: Node, container_id: ContainerId, result: NodeRecovered) -> None:
    outcome = node.containers.begin_destroy(container_id, node=node.name, is_shown=True)
    order = [*nested_ids(node.work, container_id), container_id]
    destroy_all(node, container_id, order, epoch=outcome.epoch)
    result.destroyed.append(str(container_id))


def _recover_one(node: Node, container_id: ContainerId, result: NodeRecovered) -> None:
    if not node.work.container_lock_path(container_id.parts).exists() and nested_ids(node.work, container_id):
        return  # A mere ancestor.
    with existing(node.work, container_id) as home, node.shared():
        is_kept = _is_to_be_kept(node, home)
        if is_kept:
            result.cleaned += _undo_pending(node, home, home.read())
            _keep(node, home, home.read(), result)
    if not is_kept:
        _destroy(node, container_id, result)


def _is_to_be_kept(node: Node, home: Home) -> bool:
    """Tell whether nobody has begun to destroy the container and its record can be read."""
    try:
        record = home.read()
    except RecordCorrupt as error:
        _log.error("%s; the container is destroyed", error)
        return False
    generation = record.generation if record.rootfses else ""
    return not node.containers.is_destroying(home.container_id, generation=generation)


def _keep(node: Node, home: Home, record: ContainerRecord, result: NodeRecovered) -> None:
    """Mount what is not mounted and tell Redis; a container with nothing in it goes."""
    container_id = home.container_id
    if not record.rootfses:
        if not record.pending and not nested_ids(node.work, container_id):
            home.discard()
            result.cleaned += 1
        return
    remounted = [name for name, entry in record.rootfses.items() if bring_back(node, container_id, entry)]
    shown = show(node, container_id, record)
    if shown.is_in_doubt:
        raise ViewIncomplete(reason=f"node {shown.node} has yet to say whether it has container {container_id}")
    if shown.kind is RestoreKind.ELSEWHERE:
        _log.error("container %s is here and on node %s; destroy one of them", container_id, shown.node)
    (result.remounted if remounted else result.kept).append(str(container_id))


def _undo_pending(node: Node, home: Home, record: ContainerRecord) -> int:
    """Undo provisions whose worker is dead: their pins are nobody's. A live one's pin is held and stays."""
    undone = 0
    for name, digest in record.pending.items():
        if node.store.images.drop_unheld(Digest.parse(digest), _owner(node, home.container_id, name)):
            take_down(node, home, name=name, drop=node.store.images.drop_unheld)
            home.write(home.read().without(name))
            undone += 1
    return undone


def _owner(node: Node, container_id: ContainerId, name: str) -> RefOwner:
    return RefOwner(node=node.name, container_id=str(container_id), name=name)


def _stands_on(node: Node, digest: Digest, user: str) -> bool:
    """Tell whether a rootfs that an image is kept mounted for is recorded to stand on it."""
    container_id, _, name = user.partition("/")
    try:
        record = Home(node.work, ContainerId.parse(container_id)).read()
    except RecordCorrupt:
        return True
    entry = record.rootfses.get(name)
    return entry is not None and entry.info.digest == str(digest)


@contextmanager
def _reported(container_id: ContainerId, postponed: list[ViewIncomplete]) -> Iterator[None]:
    """Log one container's error and go on with the others; what the whole node needs, Redis and the lock, is raised."""
    try:
        yield
    except ViewIncomplete as error:
        postponed.append(error)
    except (StateUnavailable, LockTimeout, LeaseLost):
        raise
    except (ProvisionerError, OSError) as error:
        _log.error("container %s cannot be recovered: %s", container_id, error)
