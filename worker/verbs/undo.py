# SPDX-License-Identifier: Apache-2.0
"""Undo: what is left of a provision that will not be tried again."""

from collections.abc import Callable
from contextlib import suppress

from worker.errors import ContainerDestroying
from worker.oci.digest import Digest
from worker.requests import ProvisionRequest
from worker.store.images import RefOwner
from worker.store.trash import discard, empty_trash
from worker.verbs.home import Home, existing, nested_ids
from worker.verbs.node import Node


def abandon(node: Node, request: ProvisionRequest, *, generation: str | None) -> None:
    """Take back the rootfs of this request unless it was provisioned after all; the container's others stay.

    Effect: on return no directory, mount, ref or field of it is left. Safe to repeat and beside itself: the flock
    orders it, and a rootfs that Redis shows as provisioned is left alone.
    """
    container_id = request.container_id
    with node.shared(), suppress(ContainerDestroying), existing(node.work, container_id) as home:
        _take_back(node, home, request)
    if generation is not None:
        image = request.image.normalised
        node.containers.abort_provision(container_id, name=request.name, image=image, generation=generation)
    empty_trash(node.work.trash_dir)


def _take_back(node: Node, home: Home, request: ProvisionRequest) -> None:
    view = node.containers.get(home.container_id)
    if (view is not None and request.name in view.images) or _is_of_another_image(home, request):
        return
    take_down(node, home, name=request.name, drop=node.store.images.drop_unheld)
    record = home.read().without(request.name)
    if record.is_empty and not nested_ids(node.work, home.container_id):
        home.discard()
    else:
        home.write(record)


def _is_of_another_image(home: Home, request: ProvisionRequest) -> bool:
    entry = home.read().rootfses.get(request.name)
    return entry is not None and entry.info.image != request.image.normalised


def take_down(node: Node, home: Home, *, name: str, drop: Callable[[Digest, RefOwner], object]) -> None:
    """Unmount one rootfs, move it out, drop its ref; the record is the caller's to change, afterwards.

    A record without its ref is taken down again; a ref without its record would be found by `recover` only.

    Locking: the caller holds the shared lock and the container's flock.

    Raises:
        BackendUnsupported: The record names a backend this node cannot use any more.
        MountFailed: The kernel refused.
    """
    record = home.read()
    entry = record.rootfses.get(name)
    paths = node.work.rootfs_paths(home.container_id.parts, name=name)
    if entry is not None:
        node.backend(entry.info.backend).destroy(paths)
    discard(paths.rootfs_home, node.work.trash_dir)
    digest = entry.info.digest if entry is not None else record.pending.get(name)
    if digest is not None:
        drop(Digest.parse(digest), RefOwner(node=node.name, container_id=str(home.container_id), name=name))
