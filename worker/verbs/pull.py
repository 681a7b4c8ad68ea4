# SPDX-License-Identifier: Apache-2.0
"""pull: an image into the store, without a container; and what provision needs of the same."""

import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from worker.errors import ImageNotFound
from worker.image import LayerFormat
from worker.oci.config import check_layers
from worker.oci.manifest import Manifest
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource
from worker.puller import Credential, RemoteImage
from worker.requests import PullRequest
from worker.store.images import RefOwner, StoredImage
from worker.verbs.access import may_have, opener_of
from worker.verbs.fetch import fetch_layers
from worker.verbs.heal import heal_layers
from worker.verbs.node import Elsewhere, Node, OnProgress
from worker.verbs.waits import NOWHERE, Waits


@dataclass(frozen=True, slots=True, kw_only=True)
class PullInfo:
    """What `pull` answers.

    Attributes:
        image: The reference, normalised.
        digest: Of the manifest.
        layers: DiffIDs, base first.
        bytes_fetched: Compressed bytes this call fetched; 0 when all was there.
    """

    image: str
    digest: str
    layers: tuple[str, ...]
    bytes_fetched: int


def pull(node: Node, request: PullRequest, *, on_progress: OnProgress) -> PullInfo | Elsewhere:
    """Make sure that the image and all its layers are in the store.

    Effect: on return they are, not necessarily by this call; nothing keeps them there afterwards. Layers that a look
        shows to be damaged are replaced.
    """
    if request.node not in (None, node.name):
        return Elsewhere(node=str(request.node))
    node.check_source(request.image)
    platform = request.platform or node.platform
    layer_format = node.layer_format(node.default_backend)
    owner = RefOwner(node=node.name, container_id="", name=f"pull-{uuid.uuid4().hex}")
    image = cached_image(node, request.image, platform=platform, secret=request.secret) if request.cached else None
    if image is not None and not node.store.layers.missing(image.layers, layer_format=layer_format):
        _heal(node, request, image, layer_format=layer_format)
        return _answer(request, image, 0)
    credential = node.credential(request.secret, request.image)
    with open_image(node, request.image, platform=platform, credential=credential) as remote:
        try:
            with pinned(node, remote, request.image, platform=platform, owner=owner) as image:
                fetched = fetch_layers(node, remote, layer_format=layer_format, check=_never, on_progress=on_progress)
        finally:
            node.store.images.drop(remote.digest, owner)
    _heal(node, request, image, layer_format=layer_format)
    return _answer(request, image, fetched)


def _heal(node: Node, request: PullRequest, image: StoredImage, *, layer_format: LayerFormat) -> None:
    credential = node.credential(request.secret, request.image)
    try:
        heal_layers(node, image.layers, layer_format=layer_format, credential=credential)
    except ImageNotFound:
        # A prune that took the image while its layers were looked at might as well have come after the answer.
        if node.store.images.get(image.digest) is not None:
            raise


def cached_image(node: Node, source: ImageSource, *, platform: Platform, secret: str | None) -> StoredImage | None:
    """Return the image the reference resolved to before, if the store still has it and the caller may have it.

    Raises:
        SecretNotFound, SecretsUnavailable, RegistryUnavailable: Whether the caller may have it cannot be told.
    """
    found = node.store.images.resolved(source.normalised, platform=str(platform))
    if found is None or not may_have(node, source, found, platform=platform, secret=secret):
        return None
    return node.store.images.get(found.digest)


def open_image(
    node: Node, source: ImageSource, *, platform: Platform, credential: Credential | None
) -> AbstractContextManager[RemoteImage]:
    """Resolve the image at its source."""
    return node.puller(source).open(source, platform=platform, credential=credential)


@contextmanager
def pinned(  # noqa: PLR0913 - what a pin says, by keyword
    node: Node,
    remote: RemoteImage,
    source: ImageSource,
    *,
    platform: Platform,
    owner: RefOwner,
    waits: Waits = NOWHERE,
) -> Iterator[StoredImage]:
    """Commit manifest and configuration and pin them and their layers, for as long as the body runs at least.

    Locking: takes the shared lock for the commit and the pin only, never while the body runs.
    """
    with ExitStack() as stack:
        image, opener = _checked(node, remote, source), opener_of(node, source, remote)
        with node.shared(waits):
            node.store.images.put(remote.digest, manifest=remote.manifest, config=remote.config)
            stack.enter_context(node.store.images.pin(remote.digest, owner))
            node.store.images.remember(source.normalised, platform=str(platform), digest=remote.digest, opener=opener)
        yield image


def _checked(node: Node, remote: RemoteImage, source: ImageSource) -> StoredImage:
    manifest = Manifest.parse(remote.manifest, image=source.normalised)
    check_layers(manifest, remote.image_config, image=source.normalised, max_layers=node.settings.max_layers)
    return StoredImage(digest=remote.digest, manifest=manifest, config=remote.image_config)


def _answer(request: PullRequest, image: StoredImage, bytes_fetched: int) -> PullInfo:
    layers = tuple(str(diff_id) for diff_id in image.layers)
    return PullInfo(
        image=request.image.normalised, digest=str(image.digest), layers=layers, bytes_fetched=bytes_fetched
    )


def _never() -> None:
    """A pull without a container has nobody to stop it but its task's end."""
