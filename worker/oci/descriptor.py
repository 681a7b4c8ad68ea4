# SPDX-License-Identifier: Apache-2.0
"""`Descriptor`: where content is named by its type, digest and size; and how an index's best entry is chosen.

Source: image-spec v1.1.1, descriptor.md, "Properties".
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from worker.errors import InvalidImage
from worker.oci.digest import Digest
from worker.oci.document import parse_digest
from worker.oci.media_types import INDEXES, MANIFESTS
from worker.oci.platform import UNKNOWN, Platform

_MAX_SIZE_BYTES = 2**63 - 1
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Names content.

    Attributes:
        media_type: As written; unknown ones are no error here.
        digest: Of the content.
        size_bytes: Of the content; 0 or more.
        platform: In an index, what the manifest runs on; None when it does not say.
        annotations: Arbitrary.
        urls: Where else the content may be had.
    """

    media_type: str
    digest: Digest
    size_bytes: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    urls: tuple[str, ...] = ()

    @classmethod
    def parse(cls, document: object, *, image: str) -> Self:
        """Parse a descriptor as it stands in a decoded document.

        Raises:
            InvalidImage: When a property is missing or of the wrong type.
        """
        if not isinstance(document, dict):
            raise InvalidImage(image=image, reason="a descriptor is not an object")
        return cls(
            media_type=_parse_media_type(document.get("mediaType"), image=image),
            digest=parse_digest(document.get("digest"), image=image, subject="a descriptor's digest"),
            size_bytes=_parse_size(document.get("size"), image=image),
            platform=_parse_platform(document.get("platform"), image=image),
            annotations=_parse_annotations(document.get("annotations"), image=image),
            urls=_parse_urls(document.get("urls"), image=image),
        )


def select(descriptors: Iterable[Descriptor], platform: Platform) -> Descriptor | None:
    """Choose the manifest, or nested index, of an index that suits `platform` best.

    The first entry of the best platform wins. Entries of other media types and for unknown platforms (attestations) are
    passed over. An entry that does not name a platform is the last resort: its configuration has to tell.

    Returns:
        None when nothing suits.
    """
    usable = [entry for entry in descriptors if entry.media_type in MANIFESTS | INDEXES]
    for candidate in (*platform.candidates, None):
        for entry in usable:
            if entry.platform == candidate:
                return entry
    return None


def available_platforms(descriptors: Iterable[Descriptor]) -> str:
    """List the platforms of an index for an error message, each once, in order."""
    named = (str(entry.platform) for entry in descriptors if entry.platform and not entry.platform.is_unknown)
    return ", ".join(dict.fromkeys(named)) or "none"


def _parse_media_type(text: object, *, image: str) -> str:
    if isinstance(text, str) and text.isprintable() and text:
        return text
    raise InvalidImage(image=image, reason="a descriptor has no mediaType")


def _parse_size(size: object, *, image: str) -> int:
    if isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= _MAX_SIZE_BYTES:
        return size
    raise InvalidImage(image=image, reason=f"a descriptor has size {size!r:.40}, which is no count of bytes")


def _parse_platform(document: object, *, image: str) -> Platform | None:
    if document is None:
        return None
    if not isinstance(document, dict):
        raise InvalidImage(image=image, reason="a descriptor's platform is not an object")
    return platform_of(document, image=image)


def platform_of(document: Mapping[str, Any], *, image: str) -> Platform:
    """Read `os`, `architecture` and `variant` of a decoded platform or configuration.

    What is absent or empty becomes `unknown`.

    Raises:
        InvalidImage: When one is no word.
    """
    words = [document.get(name) or None for name in ("os", "architecture", "variant")]
    for word in words:
        if word is not None and not (isinstance(word, str) and _WORD.fullmatch(word)):
            raise InvalidImage(image=image, reason=f"a platform holds {word!r:.80}, which is no word")
    return Platform.normalised(words[0] or UNKNOWN, words[1] or UNKNOWN, words[2])


def _parse_annotations(document: object, *, image: str) -> dict[str, str]:
    if document is None:
        return {}
    if isinstance(document, dict) and all(isinstance(value, str) for value in document.values()):
        return document
    raise InvalidImage(image=image, reason="a descriptor's annotations are not strings")


def _parse_urls(document: object, *, image: str) -> tuple[str, ...]:
    if document is None:
        return ()
    if isinstance(document, list) and all(isinstance(url, str) for url in document):
        return tuple(document)
    raise InvalidImage(image=image, reason="a descriptor's urls are not strings")
