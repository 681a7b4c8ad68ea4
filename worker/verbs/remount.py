# SPDX-License-Identifier: Apache-2.0
"""Bring back what a record says: after a reboot, a crash between record and mount, or the loss of Redis."""

from worker.container_id import ContainerId
from worker.image import LayerFormat
from worker.linux import durable
from worker.oci.digest import Digest
from worker.records import RootfsRecord
from worker.store.images import RefOwner
from worker.verbs.node import Node
from worker.verbs.stack import open_stack, stack_user


def bring_back(node: Node, container_id: ContainerId, entry: RootfsRecord) -> bool:
    """Mount the recorded rootfs if it is not mounted, and write its ref if it is missing.

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
        return False
    layers = tuple(Digest.parse(text) for text in info.layers)
    layer_format = LayerFormat(info.layer_format)
    user = stack_user(container_id, info.name)
    stack = open_stack(node, Digest.parse(info.digest), layers, layer_format=layer_format, user=user)
    durable.make_dirs(paths.rootfs_home)
    backend.provision(stack, paths, is_read_only=entry.is_read_only)
    return True
