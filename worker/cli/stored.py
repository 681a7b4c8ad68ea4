# SPDX-License-Identifier: Apache-2.0
"""What the store on this machine holds, read without its lock and without changing it, as values for people."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from worker.errors import InvalidArgument, LayerVanished, RecordCorrupt
from worker.image import LayerFormat
from worker.oci.digest import Digest
from worker.paths import StorePaths
from worker.store.images import Images, RefOwner, StoredImage
from worker.store.layers import Layers
from worker.store.resolved import ResolvedReference

Sizes = Mapping[Digest, Mapping[LayerFormat, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceView:
    """A name that led to the image, and for which platform."""

    reference: str
    platform: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImageView:
    """One image.

    Attributes:
        digest: Of the manifest.
        references: What resolved to it.
        layers: DiffIDs, base first.
        missing: Those of them that the layer format with most of them lacks; empty when the image is complete.
        layer_formats: In which it is complete.
        disk_bytes: Of its layers in all formats; layers shared with other images count here too.
        exclusive_bytes: Of those that no other image has: what would be free without this one.
        owners: Who uses it: a rootfs, or a pull (no container).
        error: Why it cannot be read, or "".
    """

    digest: str
    references: tuple[ReferenceView, ...]
    layers: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    layer_formats: tuple[str, ...] = ()
    disk_bytes: int = 0
    exclusive_bytes: int = 0
    owners: tuple[RefOwner, ...] = ()
    error: str = ""

    def to_document(self) -> dict[str, Any]:
        """Return the JSON object for `provisioner images`."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreView:
    """A whole store.

    Attributes:
        store_id: Its identity.
        store_dir: Where it is.
        images: By first reference, the nameless last.
        layers: How many are committed, in all formats.
        disk_bytes: What they take.
    """

    store_id: str
    store_dir: str
    images: tuple[StoredImageView, ...]
    layers: int
    disk_bytes: int

    def to_document(self) -> dict[str, Any]:
        """Return the JSON object for `provisioner images`."""
        return asdict(self)

    def find(self, name: str, normalised: str) -> tuple[StoredImageView, ...]:
        """Return the images of a reference, normalised, or of a digest or the beginning of one."""
        by_digest = [image for image in self.images if name and _matches(image.digest, name)]
        by_name = [image for image in self.images if normalised in {each.reference for each in image.references}]
        return tuple(dict.fromkeys([*by_name, *by_digest]))


def read_store(store_dir: Path) -> StoreView:
    """Look at a store.

    Raises:
        InvalidArgument: There is no store, or this user may not read it.
    """
    paths = StorePaths(store_dir)
    try:
        store_id = str(json.loads(paths.identity_path.read_bytes())["id"])
        images, layers = Images(paths), Layers(paths)
        sizes = _sizes(layers)
        references = [reference for _, reference in images.references()]
        views = _with_exclusive([_view(images, digest, sizes, references) for digest in images.digests()], sizes)
    except FileNotFoundError as error:
        raise _unusable(store_dir, "there is no store") from error
    except PermissionError as error:
        raise _unusable(store_dir, "only the user who runs the worker may read it") from error
    return StoreView(
        store_id=store_id,
        store_dir=str(store_dir),
        images=tuple(sorted(views, key=_order)),
        layers=sum(len(formats) for formats in sizes.values()),
        disk_bytes=sum(sum(formats.values()) for formats in sizes.values()),
    )


def read_documents(store_dir: Path, digest: str) -> dict[str, Any]:
    """Return an image's manifest and configuration, as its publisher wrote them. Raises RecordCorrupt."""
    paths = StorePaths(store_dir)
    texts = {"manifest": paths.manifest_path(digest), "config": paths.config_path(digest)}
    try:
        return {name: json.loads(path.read_bytes()) for name, path in texts.items()}
    except (OSError, ValueError) as error:
        raise RecordCorrupt(path=str(paths.image_dir(digest)), reason=str(error)) from error


def _unusable(store_dir: Path, reason: str) -> InvalidArgument:
    return InvalidArgument(argument="PROVISIONER_STORE_DIR", value=str(store_dir), reason=reason)


def _sizes(layers: Layers) -> Sizes:
    """Read what every committed layer takes; one that cannot be read or has just gone counts as absent."""
    sizes: dict[Digest, dict[LayerFormat, int]] = {}
    for layer_format, diff_id in layers.committed():
        try:
            record = layers.record(diff_id, layer_format=layer_format)
        except (LayerVanished, RecordCorrupt):
            continue
        sizes.setdefault(diff_id, {})[layer_format] = record.disk_bytes
    return sizes


def _view(images: Images, digest: Digest, sizes: Sizes, references: Iterable[ResolvedReference]) -> StoredImageView:
    names = tuple(
        ReferenceView(reference=each.reference, platform=each.platform) for each in references if each.digest == digest
    )
    owners = tuple(owner for _, owner in images.refs(digest) if owner is not None)
    try:
        image = images.get(digest)
    except RecordCorrupt as error:
        return StoredImageView(digest=str(digest), references=names, owners=owners, error=str(error))
    if image is None:
        return StoredImageView(digest=str(digest), references=names, owners=owners, error="it has just gone")
    return _readable(image, sizes, names, owners)


def _readable(
    image: StoredImage, sizes: Sizes, names: tuple[ReferenceView, ...], owners: tuple[RefOwner, ...]
) -> StoredImageView:
    unique = tuple(dict.fromkeys(image.layers))
    absent = {
        layer_format: tuple(str(layer) for layer in unique if layer_format not in sizes.get(layer, {}))
        for layer_format in LayerFormat
    }
    return StoredImageView(
        digest=str(image.digest),
        references=names,
        layers=tuple(map(str, image.layers)),
        missing=min(absent.values(), key=len),
        layer_formats=tuple(layer_format.value for layer_format, layers in absent.items() if not layers),
        disk_bytes=sum(sum(sizes.get(layer, {}).values()) for layer in unique),
        owners=owners,
    )


def _with_exclusive(views: list[StoredImageView], sizes: Sizes) -> list[StoredImageView]:
    """Add what each image has to itself."""
    users = Counter(layer for view in views for layer in set(view.layers))
    own = {str(layer): sum(formats.values()) for layer, formats in sizes.items() if users[str(layer)] == 1}
    return [replace(view, exclusive_bytes=sum(own.get(layer, 0) for layer in set(view.layers))) for view in views]


def _matches(digest: str, text: str) -> bool:
    return digest.startswith(text) or digest.partition(":")[2].startswith(text)


def _order(image: StoredImageView) -> tuple[bool, str, str]:
    first = min((each.reference for each in image.references), default="")
    return not first, first, image.digest
