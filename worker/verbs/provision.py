# SPDX-License-Identifier: Apache-2.0
"""provision: an image reference in, a mounted and recorded rootfs out.

1. *Begin*: one transition in Redis; from here the container shows as provisioning, and a destroy is noticed.
2. *Resolve* the reference: from the store if it knows it, else at its source. No lock.
3. *Pin*: under the shared lock, the image's ref.
4. *Pull* what is missing. No cluster lock.
5. *Mount*: under the shared lock and the container's flock: record, backend, `provisioned`.

When nothing is missing, 3 and 5 are one critical section.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from worker.errors import (
    ContainerDestroying,
    LayerDamaged,
    LayerVanished,
    PermanentError,
)
from worker.image import LayerFormat
from worker.oci.digest import Digest
from worker.puller import RemoteImage
from worker.records import ProvisionInfo, read_record
from worker.requests import ProvisionRequest
from worker.store.images import RefOwner, StoredImage
from worker.verbs.assemble import Work, check_current, mount, recorded
from worker.verbs.begin import Begun, begin_provision
from worker.verbs.bundled import check_bundle
from worker.verbs.fetch import fetch_layers
from worker.verbs.heal import heal_layer
from worker.verbs.home import Home, existing, opened
from worker.verbs.node import Elsewhere, Node, OnProgress
from worker.verbs.pull import cached_image, open_image, pinned
from worker.verbs.stack import prepare_stack
from worker.verbs.undo import abandon, drop_unrecorded_ref
from worker.verbs.waits import ContainerWaits
from worker.verbs.watch import DestroyWatch

Answer = TypeVar("Answer")


def provision(
    node: Node, request: ProvisionRequest, *, on_progress: OnProgress, only: str = ""
) -> ProvisionInfo | Elsewhere:
    """Answer with the rootfs of this name in this container, made from this image.

    Effect: on return it is there and recorded, not necessarily by this call. After a permanent error nothing of the
    request is left; after a transient one what was pulled and pinned stays for the next attempt.

    Args:
        only: Generation of the container in which it was begun before, if nothing else is to be begun; "" for any.

    Raises:
        ContainerConflict: The name is taken by another image; nothing changed.
        ContainerDestroying: A destroy came before or in between.
        InvalidArgument: The container is on another node than the one asked for.
        UserNotFound: A bundle is asked for, and the image's user is none of the rootfs's.
        DirectoryMissing: One is asked for of a rootfs that refuses writes, which lacks what a runtime needs.
        BackendUnsupported, InvalidArgument, SecretNotFound: The request does not fit this node.
        PermanentError: The image is refused.
        TransientError: A retry may help.
    """
    if request.node not in (None, node.name):
        return Elsewhere(node=str(request.node))
    check_bundle(node, request)
    backend = node.backend(request.backend)
    layer_format = node.layer_format(backend)
    begun = _healing(node, request, layer_format, lambda: begin_provision(node, request, only=only))
    if not isinstance(begun, Begun):
        return begun
    work = Work(
        request=request,
        begun=begun,
        platform=request.platform or node.platform,
        backend=backend,
        layer_format=layer_format,
        owner=RefOwner(node=node.name, container_id=str(request.container_id), name=request.name),
        waits=ContainerWaits(node.containers, request.container_id, generation=begun.generation),
    )
    try:
        return _healing(node, request, layer_format, lambda: _provision(node, work, on_progress))
    except PermanentError:
        abandon(node, request, generation=work.generation)
        raise


def _healing(node: Node, request: ProvisionRequest, layer_format: LayerFormat, act: Callable[[], Answer]) -> Answer:
    """Act; again after each layer that turns out to be damaged, or gone from under a record, was replaced."""
    healed: set[str] = set()
    while True:
        try:
            return act()
        except (LayerDamaged, LayerVanished) as damage:
            if damage.layer in healed:
                raise
            healed.add(damage.layer)
            layer, credential = Digest.parse(damage.layer), node.credential(request.secret, request.image)
            used = _recorded_format(node, request) or layer_format
            heal_layer(node, layer, layer_format=used, credential=credential)


def _recorded_format(node: Node, request: ProvisionRequest) -> LayerFormat | None:
    """Return the format of what is recorded already."""
    entry = read_record(node.work.record_path(request.container_id.parts)).rootfses.get(request.name)
    return None if entry is None else LayerFormat(entry.info.layer_format)


def _provision(node: Node, work: Work, on_progress: OnProgress) -> ProvisionInfo:
    if (info := _provision_recorded(node, work)) is not None:
        return info
    node.check_source(work.request.image)
    image = _cached(node, work) if work.request.cached else None
    if image is not None:
        info = _provision_warm(node, work, image)
        if info is not None:
            return info
    return _provision_cold(node, work, on_progress)


def _cached(node: Node, work: Work) -> StoredImage | None:
    return cached_image(node, work.request.image, platform=work.platform, secret=work.request.secret)


def _provision_recorded(node: Node, work: Work) -> ProvisionInfo | None:
    """Answer with what the disk has already: a worker was killed before it could say so, or Redis lost it."""
    container_id = work.request.container_id
    if work.name not in read_record(node.work.record_path(container_id.parts)).rootfses:
        return None
    with existing(node.work, container_id, work.waits) as home, node.shared(work.waits) as lease:
        check_current(node, work, home)
        lease.check()
        return recorded(node, work, home)


def _provision_cold(node: Node, work: Work, on_progress: OnProgress) -> ProvisionInfo:
    """Pin, pull, mount; the pin is held, and so known to be alive, until the end."""
    request = work.request
    credential = node.credential(request.secret, request.image)
    with (
        open_image(node, request.image, platform=work.platform, credential=credential) as remote,
        _unpinning(node, remote.digest, work.owner),
        pinned(node, remote, request.image, platform=work.platform, owner=work.owner, waits=work.waits) as image,
    ):
        return _provision_pinned(node, work, remote, image, on_progress=on_progress)


@contextmanager
def _unpinning(node: Node, digest: Digest, owner: RefOwner) -> Iterator[None]:
    """Drop the pin when the provision fails for good: a destroy that found no record did not know of it."""
    try:
        yield
    except PermanentError:
        drop_unrecorded_ref(node, digest, owner)
        raise


def _provision_pinned(
    node: Node, work: Work, remote: RemoteImage, image: StoredImage, *, on_progress: OnProgress
) -> ProvisionInfo:
    container_id = work.request.container_id
    with opened(node.work, container_id, work.waits) as home:
        check_current(node, work, home)
        is_recorded = work.name in home.read().rootfses
        if not is_recorded:
            _note_pending(node, work, home, image.digest)
    if not is_recorded:
        _fetch(node, work, remote, on_progress)
    prepare_stack(node, image.digest, image.layers, layer_format=work.layer_format)
    with existing(node.work, container_id, work.waits) as home, ExitStack() as locked:
        lease = locked.enter_context(node.shared(work.waits))
        check_current(node, work, home)
        lease.check()
        return mount(node, work, image, home, unlock=locked.close)


def _fetch(node: Node, work: Work, remote: RemoteImage, on_progress: OnProgress) -> None:
    container_id = work.request.container_id
    watch = DestroyWatch(node.containers, container_id, generation=work.generation)
    try:
        fetch_layers(
            node,
            remote,
            layer_format=work.layer_format,
            check=watch.check,
            on_progress=on_progress,
            waits=work.waits,
        )
    except ContainerDestroying:
        # Or Redis lost the hash, which looks the same: the disk says which.
        with existing(node.work, container_id) as home:
            check_current(node, work, home)
        raise


def _note_pending(node: Node, work: Work, home: Home, digest: Digest) -> None:
    """Record the pin; an earlier attempt's pin goes if the reference means another image by now."""
    record = home.read()
    earlier = record.pending.get(work.name, str(digest))
    home.write(record.with_pending(work.name, digest, generation=work.generation))
    if earlier != str(digest):
        node.store.images.drop_unheld(Digest.parse(earlier), work.owner)


def _provision_warm(node: Node, work: Work, image: StoredImage) -> ProvisionInfo | None:
    """Pin and mount in one critical section; None when a layer is missing."""
    if node.store.layers.missing(image.layers, layer_format=work.layer_format):
        return None
    with (
        _unpinning(node, image.digest, work.owner),
        opened(node.work, work.request.container_id, work.waits) as home,
        ExitStack() as pin,
        ExitStack() as locked,
    ):
        lease = locked.enter_context(node.shared(work.waits))
        check_current(node, work, home)
        # Again, now that prune cannot come in between: a pin without a mount would be left to nobody.
        if node.store.images.get(image.digest) is None:
            return None
        if node.store.layers.missing(image.layers, layer_format=work.layer_format):
            return None
        pin.enter_context(node.store.images.pin(image.digest, work.owner))
        lease.check()
        return mount(node, work, image, home, unlock=locked.close)
