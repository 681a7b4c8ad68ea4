# SPDX-License-Identifier: Apache-2.0
"""destroy: a container and everything nested in it, children first."""

from contextlib import suppress

from worker.container_id import ContainerId
from worker.containers import ContainerState, DestroyKind
from worker.errors import ContainerDestroying, ProvisionerError, RecordCorrupt, StateLost, TeardownFailed
from worker.linux import durable
from worker.requests import DestroyRequest
from worker.store.trash import empty_trash
from worker.verbs.begin import begin_destroy
from worker.verbs.home import Home, existing, nested_ids, remove_empty_ancestors
from worker.verbs.node import Elsewhere, Node
from worker.verbs.undo import take_down
from worker.verbs.waits import ContainerWaits


def destroy(node: Node, request: DestroyRequest, *, generation: str = "") -> bool | Elsewhere:
    """Take the container down, in use or not.

    Effect: on return no mount, directory, ref or hash of it or of a nested container is left, and power loss does not
    bring it back; false when there was none of them. May be run again after a failure, and joins another destroy under
    way. A container of the same id that came after the one that was marked is left alone.

    Args:
        generation: Of the container, if it was marked before and no other is to be destroyed; "" for any.

    Raises:
        ViewIncomplete: Redis lost data, and another node may have the container.
        TeardownFailed: Lists everything that could not be taken down; the rest is gone, a retry goes on.
    """
    container_id = request.container_id
    outcome = begin_destroy(node, container_id, generation=generation)
    if outcome.kind is DestroyKind.ELSEWHERE:
        return Elsewhere(node=outcome.node)
    on_disk = [*nested_ids(node.work, container_id), container_id]
    is_on_disk = node.work.container_dir(container_id.parts).exists()
    if outcome.kind is DestroyKind.ABSENT and (generation or not is_on_disk):
        return False
    destroy_all(node, container_id, _children_first({*outcome.order, *on_disk}), epoch=outcome.epoch)
    return True


def destroy_all(node: Node, container_id: ContainerId, order: list[ContainerId], *, epoch: str) -> None:
    """Take down the containers in this order, all of them even if one fails.

    Args:
        epoch: Mark of the epoch in which they were marked.

    Raises:
        TeardownFailed: In the name of `container_id`, with every failure.
    """
    failures: list[str] = []
    for victim in order:
        try:
            _destroy_one(node, victim, epoch=epoch)
        except ProvisionerError as error:
            failures.append(f"{victim}: {error}")
    _make_durable(node, order)
    empty_trash(node.work.trash_dir)
    if failures:
        raise TeardownFailed(container_id=str(container_id), failures="; ".join(failures))


def _make_durable(node: Node, order: list[ContainerId]) -> None:
    """Keep the containers from coming back after power loss, when `recover` would mount what it finds.

    Refs may: without a record they mean nothing.
    """
    for directory in sorted({node.work.container_dir(container_id.parts).parent for container_id in order}):
        # An ancestor's went with the ancestor.
        with suppress(FileNotFoundError):
            durable.sync_directory(directory)


def _children_first(container_ids: set[ContainerId]) -> list[ContainerId]:
    return sorted(container_ids, key=lambda container_id: (-len(container_id.parts), container_id.parts))


def _destroy_one(node: Node, container_id: ContainerId, *, epoch: str) -> None:
    """Unmount, move out, forget. A provision's mount under way is waited for; its later ones find the mark."""
    waits = ContainerWaits(node.containers, container_id)
    try:
        with existing(node.work, container_id, waits) as home, node.shared(waits):
            if not _is_what_was_marked(node, home, epoch=epoch):
                return
            _take_down_all(node, home)
            if nested_ids(node.work, container_id):
                # Redis lost the mark in between: they must not be moved away under whoever provisions them.
                raise StateLost(container_id=str(container_id), reason="a nested one came meanwhile")
            home.discard()
    except ContainerDestroying:
        remove_empty_ancestors(node.work, container_id)
    if not node.containers.finish_destroy(container_id):
        if _is_in_use_again(node, container_id, epoch=epoch):
            return
        raise StateLost(container_id=str(container_id), reason="it was provisioned anew, or a nested one is left")


def _is_what_was_marked(node: Node, home: Home, *, epoch: str) -> bool:
    """Tell whether the disk still has the container that was marked, with its flock held.

    Whoever stood still since may find that another destroy was faster, and that a new container has the id by now.

    Raises:
        StateLost: Redis lost the mark.
    """
    view = node.containers.get(home.container_id)
    try:
        record = home.read()
    except RecordCorrupt:
        return True
    if view is not None and view.node != node.name:
        return True
    if view is None:
        is_marked = not record.rootfses
    else:
        is_this = not record.rootfses or view.generation == record.generation
        is_marked = view.state is ContainerState.DESTROYING and is_this
    if not is_marked and node.epoch.join().mark != epoch:
        raise StateLost(container_id=str(home.container_id), reason="Redis lost the mark")
    return is_marked or view is None


def _is_in_use_again(node: Node, container_id: ContainerId, *, epoch: str) -> bool:
    """Tell whether another destroy was faster, and the next container of this id has nothing on disk yet."""
    view = node.containers.get(container_id)
    is_next = view is not None and view.state in (ContainerState.PROVISIONING, ContainerState.PROVISIONED)
    return is_next and node.epoch.join().mark == epoch


def _take_down_all(node: Node, home: Home) -> None:
    """Take down what the record says and what lies there without being in it."""
    try:
        names = {*home.read().rootfses, *home.read().pending}
    except RecordCorrupt:
        _take_down_unrecorded(node, home)
        return
    for name in sorted(names):
        take_down(node, home, name=name, drop=node.store.images.drop)
    _take_down_unrecorded(node, home)


def _take_down_unrecorded(node: Node, home: Home) -> None:
    """Without a record nobody knows the backend: each takes down what it finds. Refs left over fall to `recover`."""
    for path in sorted(node.work.rootfses_dir(home.container_id.parts).glob("*")):
        paths = node.work.rootfs_paths(home.container_id.parts, name=path.name)
        for backend in node.backends.values():
            backend.destroy(paths)
