# SPDX-License-Identifier: Apache-2.0
"""Undo: what is left of a provision that will not be tried again."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from worker.container_id import ContainerId
from worker.errors import ContainerDestroying, ProvisionUnderWay, RecordCorrupt
from worker.oci.digest import Digest
from worker.paths import RootfsPaths
from worker.records import read_record
from worker.requests import ProvisionRequest
from worker.store.images import RefOwner
from worker.store.staging import sweep_staging
from worker.store.trash import discard, empty_trash
from worker.verbs.home import Home, existing, nested_ids
from worker.verbs.node import Elsewhere, Node
from worker.verbs.observed import observed_removal
from worker.verbs.stack import close_stack


def take_back(node: Node, request: ProvisionRequest) -> Elsewhere | None:
    """Undo a provision that its caller revoked, wherever it stopped; one that was answered stays.

    Effect: on return nothing of the request is left but layers that were pulled whole, which prune takes, and what
        somebody else is at work on by now.

    Raises:
        ProvisionUnderWay: Another request for the same rootfs is at work, whose it is by now; or the process that was
            told to die has yet to.
    """
    view = node.containers.get(request.container_id)
    if view is not None and view.node != node.name:
        return Elsewhere(node=view.node)
    digest = _digest_of(node, request)
    if digest is not None and node.store.images.is_held(digest, _owner_of(node, request)):
        raise ProvisionUnderWay(container_id=str(request.container_id), name=request.name)
    is_pending = view is not None and view.pending.get(request.name) == request.image.normalised
    abandon(node, request, generation=view.generation if view is not None and is_pending else None)
    if digest is not None:
        _drop_partials(node, digest)
    sweep_staging(node.store.paths.staging_dir)
    drop_stale_refs(node)
    return None


def _digest_of(node: Node, request: ProvisionRequest) -> Digest | None:
    """Return the image that the record has for the request; None if it never came so far."""
    record = read_record(node.work.record_path(request.container_id.parts))
    digest = record.pending.get(request.name)
    if digest is None and (entry := record.rootfses.get(request.name)) is not None:
        digest = entry.info.digest
    return None if digest is None else Digest.parse(digest)


def _owner_of(node: Node, request: ProvisionRequest) -> RefOwner:
    return RefOwner(node=node.name, container_id=str(request.container_id), name=request.name)


def _drop_partials(node: Node, digest: Digest) -> None:
    """Delete what is kept of the image's blobs for the next attempt, since there will be none."""
    with suppress(RecordCorrupt):
        image = node.store.images.get(digest)
        for descriptor in image.manifest.layers if image is not None else ():
            node.store.partials.drop(descriptor.digest)


def abandon(node: Node, request: ProvisionRequest, *, generation: str | None) -> None:
    """Take back the rootfs of this request unless it was provisioned after all; the container's others stay.

    Effect: on return no directory, mount, ref or field of it is left. Safe to repeat and beside itself: the flock
    orders it, and a rootfs that Redis shows as provisioned is left alone.
    """
    container_id = request.container_id
    with suppress(ContainerDestroying), existing(node.work, container_id) as home, node.shared():
        _take_back(node, home, request, generation=generation)
    if generation is not None:
        image = request.image.normalised
        node.containers.abort_provision(container_id, name=request.name, image=image, generation=generation)
    empty_trash(node.work.trash_dir)


def _take_back(node: Node, home: Home, request: ProvisionRequest, *, generation: str | None) -> None:
    if not _is_ours(node, home, request, generation=generation):
        return
    take_down(node, home, name=request.name, drop=node.store.images.drop_unheld)
    record = home.read().without(request.name)
    if record.is_empty and not nested_ids(node.work, home.container_id):
        home.discard()
    else:
        home.write(record)


def _is_ours(node: Node, home: Home, request: ProvisionRequest, *, generation: str | None) -> bool:
    """Tell whether what is there is this request's to undo: not answered yet, and not of a later container."""
    view = node.containers.get(home.container_id)
    entry = home.read().rootfses.get(request.name)
    if entry is not None and entry.info.image != request.image.normalised:
        return False
    if view is not None:
        return view.generation == generation and request.name not in view.images
    # Redis lost the hash: what is mounted may have been answered.
    paths = node.work.rootfs_paths(home.container_id.parts, name=request.name)
    return entry is None or not node.backend(entry.info.backend).is_provisioned(paths)


def drop_stale_refs(node: Node) -> int:
    """Drop refs that no record stands behind and nobody holds, and return how many.

    Those of this node's containers, those cut short by a crash, and those of pulls, of whichever node: a pull holds its
    ref as long as it means something. Safe beside everything else.
    """
    dropped = 0
    for digest in node.store.images.digests():
        for path, owner in node.store.images.refs(digest):
            if is_unrecorded(node, digest, owner):
                dropped += node.store.images.drop_stale(path, is_stale=partial(is_unrecorded, node, digest))
    return dropped


def drop_unrecorded_ref(node: Node, digest: Digest, owner: RefOwner) -> bool:
    """Remove a ref that no record stands behind and nobody holds; tell whether it is gone.

    Whoever makes a record holds the ref until it is written, so the record is read with the ref locked against that.
    """
    return node.store.images.drop_stale(
        node.store.images.ref_path(digest, owner), is_stale=lambda found: is_unrecorded(node, digest, found)
    )


def is_unrecorded(node: Node, digest: Digest, owner: RefOwner | None) -> bool:
    """Tell whether no record of this node needs the ref; one cut short by a crash is nobody's."""
    if owner is None or not owner.container_id:
        return True
    if owner.node != node.name:
        return False
    try:
        record = read_record(node.work.record_path(ContainerId.parse(owner.container_id).parts))
    except RecordCorrupt:
        return False
    entry = record.rootfses.get(owner.name)
    return record.pending.get(owner.name) != str(digest) and (entry is None or entry.info.digest != str(digest))


def take_down(node: Node, home: Home, *, name: str, drop: Callable[[Digest, RefOwner], object]) -> None:
    """Unmount one rootfs, move it out, drop its ref; the record is the caller's to change, afterwards.

    A record without its ref is taken down again; a ref without its record would be found by `recover` only.

    Locking: the caller holds the shared lock and the container's flock.

    Raises:
        MountFailed: The kernel refused.
    """
    record = home.read()
    entry = record.rootfses.get(name)
    paths = node.work.rootfs_paths(home.container_id.parts, name=name)
    if entry is not None:
        with observed_removal(node.observe, entry.info.backend):
            _destroy_rootfs(node, paths, backend=entry.info.backend)
        close_stack(node, entry.info)
    discard(paths.rootfs_home, node.work.trash_dir)
    digest = entry.info.digest if entry is not None else record.pending.get(name)
    if digest is not None:
        drop(Digest.parse(digest), RefOwner(node=node.name, container_id=str(home.container_id), name=name))


def _destroy_rootfs(node: Node, paths: RootfsPaths, *, backend: str) -> None:
    """Take a rootfs down with the backend that made it, or, if the node has that no more, with each that it has.

    What a node mounted yesterday it can unmount today, whatever was configured or loaded meanwhile.
    """
    made_by = node.backends.get(backend)
    for each in node.backends.values() if made_by is None else (made_by,):
        each.destroy(paths)
