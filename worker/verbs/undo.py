# SPDX-License-Identifier: Apache-2.0
"""Undo: what is left of a provision that will not be tried again."""

from worker.errors import ContainerDestroying
from worker.oci.digest import Digest
from worker.requests import ProvisionRequest
from worker.store.images import RefOwner
from worker.store.trash import discard, empty_trash
from worker.verbs.home import Home, existing, nested_ids
from worker.verbs.node import Node


def abandon(node: Node, request: ProvisionRequest, *, generation: str | None) -> None:
    """Take back the rootfs of this name unless it was provisioned after all; the container's others stay.

    Effect: on return no directory, mount, ref or field of it is left. Safe to repeat and beside itself: the flock
    orders it, and a rootfs that Redis shows as provisioned is left alone.
    """
    container_id, name = request.container_id, request.name
    with node.shared():
        try:
            with existing(node.work, container_id) as home:
                view = node.containers.get(container_id)
                if view is not None and name in view.images:
                    return
                take_down(node, home, name=name)
                if home.read().is_empty and not nested_ids(node.work, container_id):
                    home.discard()
        except ContainerDestroying:
            pass
    if generation is not None:
        image = request.image.normalised
        node.containers.abort_provision(container_id, name=name, image=image, generation=generation)
    empty_trash(node.work.trash_dir)


def take_down(node: Node, home: Home, *, name: str) -> None:
    """Unmount one rootfs, forget it, drop its ref.

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
    if digest is not None:
        owner = RefOwner(node=node.name, container_id=str(home.container_id), name=name)
        node.store.images.drop(Digest.parse(digest), owner)
