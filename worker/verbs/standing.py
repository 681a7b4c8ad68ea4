# SPDX-License-Identifier: Apache-2.0
"""What containers of this node stand on, as their records say, against what is there."""

from collections.abc import Iterator

from worker.container_id import ContainerId
from worker.errors import RecordCorrupt
from worker.image import LayerFormat
from worker.linux.flock import try_lock
from worker.linux.mountinfo import mounts_at_or_below
from worker.oci.digest import Digest
from worker.problem import Problem, ProblemKind
from worker.records import ContainerRecord, RootfsRecord, read_record
from worker.store.images import RefOwner
from worker.verbs.home import containers_on_disk
from worker.verbs.node import Node
from worker.verbs.stack import stack_user


def check_containers(node: Node, *, only: frozenset[Digest] | None) -> Iterator[Problem]:
    """Yield what is wrong with the records of this node and with what they speak of.

    Args:
        only: Look at rootfses from these images; None for all.

    Locking: a container in which something seems wrong is looked at again under its flock; one that somebody works on
        is left out.
    """
    for container_id in containers_on_disk(node.work):
        if any(True for _ in _check_container(node, container_id, only=only)):
            yield from _settled(node, container_id, only=only)


def _settled(node: Node, container_id: ContainerId, *, only: frozenset[Digest] | None) -> list[Problem]:
    """Return what is wrong with a container that nobody is working on."""
    try:
        held = try_lock(node.work.container_lock_path(container_id.parts), exclusive=True)
    except FileNotFoundError:
        return []
    if held is None:
        return []
    with held:
        return list(_check_container(node, container_id, only=only))


def _check_container(node: Node, container_id: ContainerId, *, only: frozenset[Digest] | None) -> Iterator[Problem]:
    try:
        record = read_record(node.work.record_path(container_id.parts))
    except RecordCorrupt as error:
        yield Problem(kind=ProblemKind.CONTAINER_RECORD_CORRUPT, subject=str(container_id), detail=str(error))
    else:
        yield from _check_record(node, container_id, record, only=only)


def _check_record(
    node: Node, container_id: ContainerId, record: ContainerRecord, *, only: frozenset[Digest] | None
) -> Iterator[Problem]:
    for name, entry in record.rootfses.items():
        digest = Digest.parse(entry.info.digest)
        if only is None or digest in only:
            subject = f"{container_id}/{name}"
            for kind, detail in _check_rootfs(node, container_id, entry, digest):
                yield Problem(kind=kind, subject=subject, detail=detail)


def _check_rootfs(
    node: Node, container_id: ContainerId, entry: RootfsRecord, digest: Digest
) -> Iterator[tuple[ProblemKind, str]]:
    info, images = entry.info, node.store.images
    owner = RefOwner(node=node.name, container_id=str(container_id), name=info.name)
    if not node.store.paths.image_dir(info.digest).exists():
        yield ProblemKind.CONTAINER_IMAGE_MISSING, f"image {info.digest} is not in the store"
    elif not images.ref_path(digest, owner).exists():
        yield ProblemKind.CONTAINER_REF_MISSING, f"image {info.digest} has no ref of it"
    layers = [Digest.parse(text) for text in info.layers]
    for layer in node.store.layers.missing(layers, layer_format=LayerFormat(info.layer_format)):
        yield ProblemKind.CONTAINER_LAYER_MISSING, f"layer {info.layer_format}/{layer} is not in the store"
    backend = node.backends.get(info.backend)
    if backend is None:
        yield ProblemKind.CONTAINER_NOT_MOUNTED, f"backend {info.backend} does not work here"
    elif not backend.is_provisioned(node.work.rootfs_paths(container_id.parts, name=info.name)):
        yield ProblemKind.CONTAINER_NOT_MOUNTED, f"there is no rootfs at {info.rootfs}"
    elif info.layer_format == LayerFormat.EROFS and not backend.is_bulk:
        yield from _check_image_mount(node, digest, stack_user(container_id, info.name))


def _check_image_mount(node: Node, digest: Digest, user: str) -> Iterator[tuple[ProblemKind, str]]:
    """Compare what the image of a rootfs in EROFS format is mounted from with what it must be."""
    if user not in node.image_mounts.users(digest):
        yield ProblemKind.CONTAINER_MOUNT_WRONG, f"it is not among the users of image {digest}"
    mount_dir = node.work.image_mount_dir(str(digest)).resolve()
    for mount in mounts_at_or_below(mount_dir):
        if mount.path == mount_dir and mount.fs_type != LayerFormat.EROFS:
            yield ProblemKind.CONTAINER_MOUNT_WRONG, f"{mount_dir} shows {mount.fs_type}, not the image"
