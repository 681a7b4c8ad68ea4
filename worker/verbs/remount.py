# SPDX-License-Identifier: Apache-2.0
"""Bring back what a record says: after a reboot, a crash between record and mount, or the loss of Redis."""

from worker.container_id import ContainerId
from worker.containers import RestoreOutcome
from worker.errors import StateLost
from worker.image import LayerFormat
from worker.linux import durable
from worker.oci.digest import Digest
from worker.records import ContainerRecord, ProvisionInfo, RootfsRecord, read_record
from worker.store.images import RefOwner
from worker.verbs.bundled import complete_bundle, with_mount_points
from worker.verbs.home import nested_ids, opened
from worker.verbs.node import Node
from worker.verbs.stack import open_stack, stack_user


def bring_back(node: Node, container_id: ContainerId, entry: RootfsRecord) -> bool:
    """Mount the recorded rootfs if it is not mounted, and write its ref and its bundle if they are missing.

    Locking: the caller holds the shared lock and the container's flock.

    Returns:
        Whether it had to be mounted.

    Raises:
        BackendUnsupported: The record names a backend this node cannot use any more.
        LayerVanished: A layer is not in the store.
    """
    info = entry.info
    owner = RefOwner(node=node.name, container_id=str(container_id), name=info.name)
    node.store.images.keep(Digest.parse(info.digest), owner)
    backend = node.backend(info.backend)
    paths = node.work.rootfs_paths(container_id.parts, name=info.name)
    if backend.is_provisioned(paths):
        complete_bundle(entry, paths)
        return False
    layers = tuple(Digest.parse(text) for text in info.layers)
    layer_format = LayerFormat(info.layer_format)
    user = stack_user(container_id, info.name)
    stack = open_stack(node, Digest.parse(info.digest), layers, layer_format=layer_format, user=user)
    durable.make_dirs_unsynced(paths.rootfs_home)
    stack = with_mount_points(stack, entry, paths, backend=backend)
    backend.provision(stack, paths, is_read_only=entry.is_read_only)
    complete_bundle(entry, paths)
    return True


def show(node: Node, container_id: ContainerId, record: ContainerRecord) -> RestoreOutcome:
    """Let Redis show what the record has. Locking: the caller holds the container's flock since it read the record."""
    rootfses = {name: (entry.info.image, entry.info.to_json()) for name, entry in record.rootfses.items()}
    return node.containers.restore(container_id, node=node.name, generation=record.generation, rootfses=rootfses)


def confirmed(node: Node, container_id: ContainerId, info: ProvisionInfo) -> ProvisionInfo:
    """Return what the disk has of the rootfs that Redis shows: a copy of Redis can be older than the last destroy.

    Effect: what was not mounted is.

    Raises:
        StateLost: The disk had it not. Redis has been told, and the next attempt finds what is so.
    """
    paths = node.work.rootfs_paths(container_id.parts, name=info.name)
    entry = read_record(node.work.record_path(container_id.parts)).rootfses.get(info.name)
    if entry is not None and entry.info == info and node.backend(info.backend).is_provisioned(paths):
        return info
    with opened(node.work, container_id) as home, node.shared() as lease:
        lease.check()
        record = home.read()
        for each in record.rootfses.values():
            bring_back(node, container_id, each)
        show(node, container_id, record)
        if record.is_empty and not nested_ids(node.work, container_id):
            home.discard()
    entry = record.rootfses.get(info.name)
    if entry is not None and entry.info.image == info.image:
        return entry.info
    raise StateLost(container_id=str(container_id), reason="Redis showed a rootfs that was not there")
