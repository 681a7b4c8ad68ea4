# SPDX-License-Identifier: Apache-2.0
"""Undo: what is left of a provision that will not be tried again."""

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
    digest = take_down(node, home, name=request.name)
    if digest is not None:
        owner = RefOwner(node=node.name, container_id=str(home.container_id), name=request.name)
        node.store.images.drop_unheld(digest, owner)
    if home.read().is_empty and not nested_ids(node.work, home.container_id):
        home.discard()


def _is_of_another_image(home: Home, request: ProvisionRequest) -> bool:
    entry = home.read().rootfses.get(request.name)
    return entry is not None and entry.info.image != request.image.normalised


def take_down(node: Node, home: Home, *, name: str) -> Digest | None:
    """Unmount one rootfs and forget it; return the image whose ref the caller is to drop.

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
    home.write(record.without(name))
    digest = entry.info.digest if entry is not None else record.pending.get(name)
    return None if digest is None else Digest.parse(digest)
