# SPDX-License-Identifier: Apache-2.0
"""The first step of provision and destroy: the transition in Redis from which everybody else sees them.

After Redis lost data, another node may have the container without showing it yet. This node then speaks for what its
own disk has, and the rest has to wait: see `worker.epoch`.
"""

from contextlib import suppress
from dataclasses import dataclass

from worker.container_id import ContainerId
from worker.containers import BeginKind, BeginOutcome, DestroyKind, DestroyOutcome
from worker.errors import ContainerConflict, ContainerDestroying, InvalidArgument, RecordCorrupt, StateLost
from worker.records import ProvisionInfo
from worker.requests import ProvisionRequest
from worker.verbs.bundled import add_bundle
from worker.verbs.home import existing, nested_ids
from worker.verbs.node import Elsewhere, Node
from worker.verbs.remount import confirmed, show


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A provision that Redis shows as under way.

    Attributes:
        generation: Of the container.
        epoch: Mark of the epoch it was begun in.
    """

    generation: str
    epoch: str


def begin_provision(node: Node, request: ProvisionRequest, *, only: str = "") -> Begun | ProvisionInfo | Elsewhere:
    """Begin, or answer with what is there already.

    Args:
        only: Generation of the container in which it was begun before: nothing else is begun; "" for any.

    Raises:
        ContainerConflict: The name is taken by another image.
        ContainerDestroying: The container, or an ancestor, is being destroyed.
        InvalidArgument: The container is on another node than the one asked for.
        ViewIncomplete: Another node may have it.
    """
    outcome = _begin_provision(node, request, only=only, is_shown=False)
    if outcome.kind is BeginKind.UNKNOWN:
        _show_disk(node, request.container_id, home=request.container_id.root)
        outcome = _begin_provision(node, request, only=only, is_shown=True)
    match outcome.kind:
        case BeginKind.ELSEWHERE if request.node is None:
            return Elsewhere(node=outcome.node)
        case BeginKind.ELSEWHERE:
            reason = f"container {request.container_id} is on node {outcome.node}"
            raise InvalidArgument(argument="node", value=request.node, reason=reason)
        case BeginKind.PROVISIONED:
            info = confirmed(node, request.container_id, ProvisionInfo.from_json(outcome.info))
            return _as_asked(node, request, info)
        case BeginKind.CONFLICT:
            raise conflict(request, outcome.image)
        case BeginKind.DESTROYING | BeginKind.UNKNOWN:
            raise ContainerDestroying(container_id=str(outcome.container_id or request.container_id))
        case BeginKind.BEGUN:
            return Begun(generation=outcome.generation, epoch=outcome.epoch)


def _as_asked(node: Node, request: ProvisionRequest, info: ProvisionInfo) -> ProvisionInfo:
    """Give what was provisioned earlier a bundle, if one is asked for by now.

    Raises:
        StateLost: The rootfs went away meanwhile; the next attempt finds what is so.
    """
    if not request.bundle or info.bundle is not None:
        return info
    with existing(node.work, request.container_id) as home:
        entry = home.read().rootfses.get(request.name)
        if entry is None or entry.info.digest != info.digest:
            raise StateLost(container_id=info.container_id, reason="its rootfs went while it was to get a bundle")
        if entry.info.bundle is None:
            entry = add_bundle(node, home, entry)
        show(node, request.container_id, home.read())
    return entry.info


def _begin_provision(node: Node, request: ProvisionRequest, *, only: str, is_shown: bool) -> BeginOutcome:
    return node.containers.begin_provision(
        request.container_id,
        name=request.name,
        image=request.image.normalised,
        node=node.name,
        request=request.to_json(),
        only=only,
        is_shown=is_shown,
    )


def begin_destroy(node: Node, container_id: ContainerId, *, generation: str = "") -> DestroyOutcome:
    """Mark the container, shown by Redis or only there on disk, and all nested in it.

    Args:
        generation: Of the container, if it was marked before and no other is to be; "" for any.

    Raises:
        StateLost: Redis lost what it was shown, before all of it was marked.
        ViewIncomplete: Another node may have it.
    """
    outcome = node.containers.begin_destroy(container_id, node=node.name, generation=generation)
    is_hidden = outcome.kind is DestroyKind.ABSENT and not generation and _is_on_disk(node, container_id)
    if outcome.kind is not DestroyKind.UNKNOWN and not is_hidden:
        return outcome
    epoch = node.epoch.join().mark
    _show_disk(node, container_id, home=container_id)
    outcome = node.containers.begin_destroy(container_id, node=node.name, generation=generation, is_shown=True)
    if outcome.epoch not in ("", epoch):
        # Whoever took it for marked would find it shown by a recover, and leave it as another one's.
        raise StateLost(container_id=str(container_id), reason="Redis lost what it was shown")
    return outcome


def _show_disk(node: Node, container_id: ContainerId, *, home: ContainerId) -> None:
    """Tell Redis what this node has of the container.

    Args:
        home: The container, or the root ancestor on whose node it belongs; not here, it may be elsewhere.
    """
    epoch = node.epoch.join()
    if not epoch.is_settled and not _is_on_disk(node, home):
        raise epoch.incomplete()
    _show_all(node, container_id)


def _is_on_disk(node: Node, container_id: ContainerId) -> bool:
    """Tell whether this node has the container or one nested in it; remains of a directory are none."""
    return node.work.record_path(container_id.parts).exists() or bool(nested_ids(node.work, container_id))


def _show_all(node: Node, container_id: ContainerId) -> None:
    """Show the container, what is nested in it and what it is nested in; one without a record cannot be shown."""
    for each in (*nested_ids(node.work, container_id), container_id, *container_id.ancestors):
        if not node.work.record_path(each.parts).exists():
            continue
        with suppress(RecordCorrupt, ContainerDestroying), existing(node.work, each) as home:
            show(node, each, home.read())


def conflict(request: ProvisionRequest, image: str) -> ContainerConflict:
    """Return the error for a name that another image has."""
    return ContainerConflict(
        container_id=str(request.container_id), name=request.name, image=image, requested=request.image.normalised
    )
