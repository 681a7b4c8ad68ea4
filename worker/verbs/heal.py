# SPDX-License-Identifier: Apache-2.0
"""heal: put what is damaged in the store right, by fetching it anew from where its image came from.

The replacement is made in staging and verified like any layer before the damaged one goes, so nothing is ever missing
that was there, and a source that is gone changes nothing. What already stands on a layer of an EROFS image keeps the
old files until it is destroyed; whoever comes later gets the new ones. A tree that something stands on cannot be
replaced under it.
"""

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from worker.container_id import ContainerId
from worker.errors import (
    ImageNotFound,
    InvalidArgument,
    LayerDamaged,
    LayerInUse,
    LayerVanished,
    ProvisionerError,
    RecordCorrupt,
)
from worker.image import LayerFormat
from worker.layers.build import build_layer, make_durable
from worker.linux import durable
from worker.linux.flock import try_lock
from worker.oci.digest import Digest
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource
from worker.puller import Credential, RemoteImage
from worker.records import RootfsRecord, read_record
from worker.store.images import RefOwner
from worker.verbs.home import containers_on_disk
from worker.verbs.node import Node

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an image can be fetched from again.

    Attributes:
        digest: Of the manifest.
        source: Leads to exactly this manifest, as far as a name can.
        platform: As it was asked for.
        credential: For the source, or None.
    """

    digest: Digest
    source: ImageSource
    platform: Platform
    credential: Credential | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Healed:
    """A layer that was replaced.

    Attributes:
        stale: Rootfses that stand on the old files until they are provisioned anew.
    """

    stale: tuple[RefOwner, ...]


def heal_layers(
    node: Node, layers: Iterable[Digest], *, layer_format: LayerFormat, credential: Credential | None
) -> None:
    """Replace those of an image's layers that a look shows to be damaged or gone.

    Locking: the caller holds none, nor a ref's flock.

    Raises:
        ProvisionerError: A layer cannot be had from any of its sources; what the last one said.
    """
    for diff_id in dict.fromkeys(layers):
        try:
            node.store.layers.check(diff_id, layer_format=layer_format)
        except (LayerDamaged, LayerVanished) as damage:
            _log.warning("%s; it is fetched anew", damage)
            heal_layer(node, diff_id, layer_format=layer_format, credential=credential)


def heal_layer(
    node: Node,
    diff_id: Digest,
    *,
    layer_format: LayerFormat,
    credential: Credential | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Healed:
    """Fetch a layer anew from the first source of any image with it that still has it, and replace it.

    Effect: on return the layer is as its DiffID says and durable. On an error nothing has changed.
    Locking: holds nothing across the network but a ref on the image; takes the exclusive lock for the exchange.

    Raises:
        ImageNotFound: No source is known.
        LayerInUse: Something stands on the layer's tree.
        ProvisionerError: What the last source said.
    """
    failure: ProvisionerError = ImageNotFound(
        image=str(diff_id), reason="no source of an image with this layer is known"
    )
    for origin in _origins(node, diff_id, credential=credential):
        try:
            with opened_origin(node, origin) as remote, _pinned(node, origin.digest):
                return _replace(node, remote, diff_id, layer_format=layer_format, on_progress=on_progress)
        except ProvisionerError as error:
            failure = error
    raise failure


def heal_image(node: Node, digest: Digest) -> None:
    """Fetch an image's manifest and configuration anew and write them in their place; its refs stay.

    Raises:
        ImageNotFound: No source is known.
        ProvisionerError: What the last source said.
    """
    failure: ProvisionerError = ImageNotFound(image=str(digest), reason="no source of it is known")
    for origin in origins_of(node, digest):
        try:
            with opened_origin(node, origin) as remote, node.shared():
                text = str(digest)
                durable.make_dirs(node.store.paths.refs_dir(text))
                durable.write_file(node.store.paths.config_path(text), remote.config)
                durable.write_file(node.store.paths.manifest_path(text), remote.manifest)
                return
        except ProvisionerError as error:
            failure = error
    raise failure


@contextmanager
def opened_origin(node: Node, origin: Origin) -> Iterator[RemoteImage]:
    """Open an image at its origin.

    Raises:
        ImageNotFound: The name leads to another image by now.
    """
    puller = node.puller(origin.source)
    with puller.open(origin.source, platform=origin.platform, credential=origin.credential) as remote:
        if remote.digest != origin.digest:
            reason = f"it is {remote.digest} by now, and {origin.digest} is wanted"
            raise ImageNotFound(image=origin.source.normalised, reason=reason)
        yield remote


def origins_of(node: Node, digest: Digest, *, credential: Credential | None = None) -> Iterator[Origin]:
    """Yield where an image may still be: what led to it, and what containers of this node were provisioned from."""
    seen = set()
    names = [
        (reference.reference, reference.platform)
        for _, reference in node.store.images.references()
        if reference.digest == digest
    ]
    recorded = [entry.info.image for _, entry in recorded_rootfses(node) if entry.info.digest == str(digest)]
    for name, platform in [*names, *((image, _platform(node, digest)) for image in recorded)]:
        try:
            origin = Origin(
                digest=digest,
                source=ImageSource.parse(name).exactly(digest),
                platform=Platform.parse(platform),
                credential=credential,
            )
        except InvalidArgument:
            continue
        if origin.source not in seen:
            seen.add(origin.source)
            yield origin


def recorded_rootfses(node: Node) -> Iterator[tuple[ContainerId, RootfsRecord]]:
    """List the rootfses that records of this node speak of; corrupt records are passed over."""
    for container_id in containers_on_disk(node.work):
        try:
            record = read_record(node.work.record_path(container_id.parts))
        except RecordCorrupt:
            continue
        for entry in record.rootfses.values():
            yield container_id, entry


def users_of(node: Node, diff_id: Digest) -> Iterator[tuple[Digest, RefOwner, bool]]:
    """Yield who stands on a layer: the image, the ref, and whether it is being worked on right now.

    Rootfses of other nodes count; of this one only those that are there.
    """
    for digest in images_with(node, diff_id):
        for path, owner in node.store.images.refs(digest):
            if owner is None or not owner.container_id:
                continue
            held = try_lock(path, exclusive=True) if path.exists() else None
            if held is not None:
                held.release()
            if held is None or owner.node != node.name or _is_there(node, owner):
                yield digest, owner, held is None


def images_with(node: Node, diff_id: Digest) -> Iterator[Digest]:
    """Yield the readable images that have the layer."""
    for digest in node.store.images.digests():
        try:
            image = node.store.images.get(digest)
        except RecordCorrupt:
            continue
        if image is not None and diff_id in image.layers:
            yield digest


def _origins(node: Node, diff_id: Digest, *, credential: Credential | None) -> Iterator[Origin]:
    for digest in images_with(node, diff_id):
        yield from origins_of(node, digest, credential=credential)


def _platform(node: Node, digest: Digest) -> str:
    try:
        image = node.store.images.get(digest)
    except RecordCorrupt:
        image = None
    is_told = image is not None and not image.config.platform.is_unknown
    return str(image.config.platform if image is not None and is_told else node.platform)


@contextmanager
def _pinned(node: Node, digest: Digest) -> Iterator[None]:
    """Keep the image while one of its layers is fetched."""
    owner = RefOwner(node=node.name, container_id="", name=f"heal-{uuid.uuid4().hex}")
    with ExitStack() as pin:
        with node.shared():
            if not node.store.paths.image_dir(str(digest)).exists():
                raise ImageNotFound(image=str(digest), reason="it was pruned meanwhile")
            pin.callback(node.store.images.drop, digest, owner)
            pin.enter_context(node.store.images.pin(digest, owner))
        yield


def _replace(
    node: Node, remote: RemoteImage, diff_id: Digest, *, layer_format: LayerFormat, on_progress: Callable[[int], None]
) -> Healed:
    descriptor = dict(zip(remote.image_config.diff_ids, remote.layers, strict=True))[diff_id]
    with node.store.layers.stage_again(diff_id, layer_format=layer_format) as staging_dir:
        with remote.blob(descriptor) as chunks:
            build_layer(
                chunks,
                descriptor=descriptor,
                diff_id=diff_id,
                layer_format=layer_format,
                staging_dir=staging_dir,
                limits=node.limits,
                is_squashed=node.is_squashed,
                on_progress=on_progress,
            )
        make_durable(staging_dir, layer_format=layer_format)
        with node.exclusive() as lease:
            users = tuple(users_of(node, diff_id))
            if users and layer_format is not LayerFormat.EROFS:
                raise LayerInUse(layer=str(diff_id), users=_named(users))
            lease.check()
            node.store.layers.replace(staging_dir, diff_id, layer_format=layer_format)
    if layer_format is LayerFormat.EROFS:
        _detach(node, diff_id, {digest for digest, _, is_busy in users if is_busy})
    return Healed(stale=tuple(owner for _, owner, _ in users))


def _detach(node: Node, diff_id: Digest, busy: set[Digest]) -> None:
    """Let the next rootfs of this node mount the new files, except while a copy reads the old ones by their path."""
    for digest in images_with(node, diff_id):
        if digest not in busy:
            node.image_mounts.detach(digest)


def _is_there(node: Node, owner: RefOwner) -> bool:
    container_id = ContainerId.parse(owner.container_id)
    try:
        entry = read_record(node.work.record_path(container_id.parts)).rootfses.get(owner.name)
    except RecordCorrupt:
        return True
    if entry is None or entry.info.backend not in node.backends:
        return entry is not None
    paths = node.work.rootfs_paths(container_id.parts, name=owner.name)
    return node.backends[entry.info.backend].is_provisioned(paths)


def _named(users: Iterable[tuple[Digest, RefOwner, bool]]) -> str:
    return ", ".join(sorted({f"{owner.container_id}/{owner.name} on {owner.node}" for _, owner, _ in users}))
