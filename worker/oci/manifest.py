# SPDX-License-Identifier: Apache-2.0
"""`Manifest` and `Index`: an image's parts, or its variants per platform.

One document must be one thing. A document that could be read as a manifest and as an index, or whose `mediaType` is not
what its source called it, lets two readers see two images under one digest (CVE-2021-41190) and is refused.

Source: image-spec v1.1.1, manifest.md and image-index.md; distribution, docs/spec/manifest-v2-2.md.
"""

from dataclasses import dataclass
from typing import Any, Self

from worker.errors import InvalidImage
from worker.oci.descriptor import Descriptor
from worker.oci.document import decode_object
from worker.oci.media_types import (
    APPC_CONFIG,
    CONFIGS,
    GENERIC,
    INDEXES,
    LAYERS,
    MANIFESTS,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1,
)

_SCHEMA_VERSION = 2
_MANIFEST_MEMBERS = ("config", "layers")
_INDEX_MEMBERS = ("manifests",)
_SCHEMA1_MEMBERS = ("fsLayers", "history")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image for one platform.

    Attributes:
        media_type: OCI's or Docker's.
        config: The image configuration.
        layers: Base first; the same layer may stand twice.
    """

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, content: bytes, *, image: str, media_type: str | None = None) -> Self:
        """Parse a manifest.

        Args:
            content: The document, byte for byte.
            image: Named in errors.
            media_type: What its source called it (Content-Type without parameters, or the descriptor's); must agree.

        Raises:
            InvalidImage: When it is no manifest of a container image that can be unpacked, nor one that a puller made.
        """
        document = decode_object(content, image=image, subject="manifest")
        found = _check_media_type(document, image=image, media_type=media_type)
        if found not in MANIFESTS:
            raise InvalidImage(image=image, reason=f"a manifest was expected, not {found}")
        return cls._from_document(document, image=image, media_type=found, is_ours=True)

    @classmethod
    def _from_document(cls, document: dict[str, Any], *, image: str, media_type: str, is_ours: bool = False) -> Self:
        config = Descriptor.parse(document.get("config"), image=image)
        if config.media_type not in CONFIGS and not (is_ours and config.media_type == APPC_CONFIG):
            reason = f"it is an artifact of type {config.media_type}, not a container image"
            raise InvalidImage(image=image, reason=reason)
        layers = _parse_descriptors(document.get("layers"), image=image, name="layers")
        for number, layer in enumerate(layers):
            if layer.media_type not in LAYERS:
                reason = f"layer {number} has media type {layer.media_type}, which cannot be unpacked"
                raise InvalidImage(image=image, reason=reason)
        return cls(media_type=media_type, config=config, layers=layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Manifests of one image for several platforms.

    Attributes:
        media_type: OCI's or Docker's.
        manifests: In the order that decides between equals; entries of unknown media types stay in.
    """

    media_type: str
    manifests: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, content: bytes, *, image: str, media_type: str | None = None) -> Self:
        """Parse an index; arguments and errors as `Manifest.parse`."""
        document = decode_object(content, image=image, subject="index")
        found = _check_media_type(document, image=image, media_type=media_type)
        if found not in INDEXES:
            raise InvalidImage(image=image, reason=f"an index was expected, not {found}")
        return cls._from_document(document, image=image, media_type=found)

    @classmethod
    def _from_document(cls, document: dict[str, Any], *, image: str, media_type: str) -> Self:
        manifests = _parse_descriptors(document.get("manifests"), image=image, name="manifests")
        return cls(media_type=media_type, manifests=manifests)


def parse_manifest_or_index(content: bytes, *, image: str, media_type: str | None = None) -> Manifest | Index:
    """Parse whichever of the two the document is; arguments and errors as `Manifest.parse`."""
    document = decode_object(content, image=image, subject="manifest")
    found = _check_media_type(document, image=image, media_type=media_type)
    kind = Index if found in INDEXES else Manifest
    return kind._from_document(document, image=image, media_type=found)  # noqa: SLF001 - the module's own classes


def _check_media_type(document: dict[str, Any], *, image: str, media_type: str | None) -> str:
    """Decide what the document is, from its source's word, its own and its members, which must all agree."""
    named = document.get("mediaType")
    if named is not None and not isinstance(named, str):
        raise InvalidImage(image=image, reason="its mediaType is not a string")
    told = None if media_type in GENERIC else media_type
    _refuse_schema1(document, {named, told}, image=image)
    if named and told and named != told:
        raise InvalidImage(image=image, reason=f"its mediaType is {named} but its source calls it {told}")
    found = named or told or _infer_media_type(document)
    if found not in MANIFESTS | INDEXES:
        raise InvalidImage(image=image, reason=f"media type {found!r:.160} is neither a manifest nor an index")
    _refuse_confusion(document, image=image, is_index=found in INDEXES)
    if document.get("schemaVersion") != _SCHEMA_VERSION:
        raise InvalidImage(image=image, reason=f"its schemaVersion is not {_SCHEMA_VERSION}")
    return found


def _infer_media_type(document: dict[str, Any]) -> str:
    """Name a document that does not name itself, which OCI allows; confusion is refused afterwards."""
    return OCI_INDEX if _has(document, _INDEX_MEMBERS) else OCI_MANIFEST


def _refuse_schema1(document: dict[str, Any], media_types: set[str | None], *, image: str) -> None:
    if media_types & SCHEMA1 or document.get("schemaVersion") == 1:
        reason = (
            "it has Docker's schema 1, which cannot be verified; push it again with Docker 1.10 or later, or "
            "convert it: skopeo copy --format v2s2 docker://IMAGE docker://IMAGE"
        )
        raise InvalidImage(image=image, reason=reason)


def _refuse_confusion(document: dict[str, Any], *, image: str, is_index: bool) -> None:
    other = _MANIFEST_MEMBERS if is_index else _INDEX_MEMBERS
    if _has(document, (*other, *_SCHEMA1_MEMBERS)):
        raise InvalidImage(image=image, reason="it can be read as a manifest and as an index")


def _has(document: dict[str, Any], members: tuple[str, ...]) -> bool:
    return any(document.get(member) is not None for member in members)


def _parse_descriptors(documents: object, *, image: str, name: str) -> tuple[Descriptor, ...]:
    if not isinstance(documents, list):
        raise InvalidImage(image=image, reason=f"its {name} are not a list")
    return tuple(Descriptor.parse(document, image=image) for document in documents)
