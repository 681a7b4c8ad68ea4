# SPDX-License-Identifier: Apache-2.0
"""The form of an archive that Docker wrote from 1.10 to 24 and Podman still writes: `manifest.json`, nothing of OCI.

Source: moby, image/spec/v1.2.md, "Combined Image JSON + Filesystem Changeset Format".
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from worker.errors import DigestMismatch, ImageNotFound, InvalidImage
from worker.oci.config import ImageConfig
from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest
from worker.oci.document import decode_array
from worker.oci.manifest import Manifest
from worker.oci.media_types import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from worker.oci.reference import ImageSource
from worker.puller import RemoteImage
from worker.pullers.choice import choose
from worker.pullers.content import Content, Extent, LocalImage, reading
from worker.pullers.made_manifest import make_manifest
from worker.pullers.resolve import Wanted, complete

MANIFEST_FILE: Final = "manifest.json"
Paths = dict[Digest, str]
"""Where the blobs of an archive lie, which names them as it likes."""

_CONFIG_NAME = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")
_COMPRESSIONS = ((b"\x1f\x8b", OCI_LAYER_GZIP), (b"\x28\xb5\x2f\xfd", OCI_LAYER_ZSTD))


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedImage:
    """One entry of manifest.json.

    Attributes:
        config: Path of the configuration.
        tags: Names of the image; may be none.
        layers: Paths of the layers, base first.
    """

    config: str
    tags: tuple[str, ...]
    layers: tuple[str, ...]

    @classmethod
    def parse(cls, document: object, *, image: str) -> Self:
        """Parse an entry.

        Raises:
            InvalidImage: It is malformed.
        """
        if not isinstance(document, dict) or not isinstance(document.get("Config"), str):
            raise InvalidImage(image=image, reason=f"an entry of its {MANIFEST_FILE} names no Config")
        tags, layers = (document.get(name) or [] for name in ("RepoTags", "Layers"))
        for paths in (tags, layers):
            if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
                raise InvalidImage(image=image, reason=f"RepoTags or Layers of its {MANIFEST_FILE} are not strings")
        return cls(config=document["Config"], tags=tuple(tags), layers=tuple(layers))


def open_saved(content: Content, source: ImageSource, wanted: Wanted) -> RemoteImage:
    """Resolve the image that `source` selects in the archive that `content` holds.

    Cost: reads every compressed layer once, since the archive does not name the digests of its blobs.

    Raises:
        ImageNotFound: The archive has no such image, or several and none is selected.
        InvalidImage: It is malformed.
    """
    documents = decode_array(content.read_document(MANIFEST_FILE), image=wanted.image, subject=MANIFEST_FILE)
    images = [SavedImage.parse(document, image=wanted.image) for document in documents]
    saved = _choose(images, source)
    config = _read_config(content, saved.config)
    layers, paths = _describe(content, saved, config, wanted)
    manifest = make_manifest(config, layers)
    resolved = complete(manifest, Manifest.parse(manifest, image=wanted.image), config, wanted)
    return LocalImage(content, resolved, paths)


def _choose(images: Sequence[SavedImage], source: ImageSource) -> SavedImage:
    chosen = choose(images, source, names=lambda saved: saved.tags, identity=lambda saved: saved.config)
    if len({saved.config for saved in chosen}) > 1:
        raise ImageNotFound(
            image=str(source), reason="there are several of this name or without one; choose by :@<number>"
        )
    return chosen[0]


def _read_config(content: Content, path: str) -> bytes:
    """Return the configuration, checked against the digest in its name, if there is one."""
    config = content.read_document(path)
    expected, actual = _CONFIG_NAME.fullmatch(path), Digest.of(config)
    if expected is not None and expected[1] != actual.hex:
        raise DigestMismatch(subject=f"{path} of {content.image}", expected=f"sha256:{expected[1]}", actual=str(actual))
    return config


def _describe(content: Content, saved: SavedImage, config: bytes, wanted: Wanted) -> tuple[list[Descriptor], Paths]:
    """Return the layers' descriptors, base first, and where their blobs are."""
    diff_ids = ImageConfig.parse(config, image=wanted.image).diff_ids
    if len(diff_ids) != len(saved.layers) or len(diff_ids) > wanted.max_layers:
        reason = (
            f"it has {len(saved.layers)} layers, its configuration {len(diff_ids)}, allowed are {wanted.max_layers}"
        )
        raise InvalidImage(image=wanted.image, reason=reason)
    layers, paths = [], {}
    for path, diff_id in zip(saved.layers, diff_ids, strict=True):
        with content.open(path) as extent, reading(wanted.image):
            layers.append(describe_layer(extent, diff_id))
        paths[layers[-1].digest] = path
    return layers, paths


def describe_layer(extent: Extent, diff_id: Digest) -> Descriptor:
    """Name a layer's blob: one that is not compressed has its DiffID for digest, which whoever reads it verifies."""
    head = extent.read(0, 4)
    for magic, media_type in _COMPRESSIONS:
        if head.startswith(magic):
            return Descriptor(media_type=media_type, digest=_digest(extent), size_bytes=extent.size_bytes)
    return Descriptor(media_type=OCI_LAYER, digest=diff_id, size_bytes=extent.size_bytes)


def _digest(extent: Extent) -> Digest:
    hasher = hashlib.sha256()
    for chunk in extent.chunks():
        hasher.update(chunk)
    return Digest("sha256", hasher.hexdigest())
