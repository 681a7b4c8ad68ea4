# SPDX-License-Identifier: Apache-2.0
"""`AppcReference`: what an App Container image is asked for by: its name, its labels, its id.

Source: appc spec 0.8.11, types.md, "AC Identifier Type" and "Image ID Type"; aci.md, "Image Manifest Schema".
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, Self

from typing_extensions import override

from worker.errors import InvalidArgument
from worker.oci.digest import Digest
from worker.oci.platform import Platform

IDENTIFIER: Final = re.compile(r"[a-z0-9]+(?:[-._~/][a-z0-9]+)*")
IMAGE_ID: Final = re.compile(r"sha512-[0-9a-f]{128}")
MAX_NAME_CHARS: Final = 255

_ID_MARK = "@sha512-"
_RESERVED_LABEL = "name"
_ARCHITECTURES = {"386": "i386", "arm64": "aarch64"}
_BIG_ENDIAN = {"aarch64_be": ("arm64be", None), "armv7b": ("armbe", "v7")}
"""Of the processors Appc names, those that OCI spells otherwise and nobody else names so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppcReference:
    """An image's name and what else it must have.

    Attributes:
        name: An AC Identifier.
        labels: Name and value, by name; each name once.
        image_id: The sha512 of the uncompressed archive, if it must be a certain one.
    """

    name: str
    labels: tuple[tuple[str, str], ...] = ()
    image_id: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `NAME[,label=value…][@sha512-…]`.

        Raises:
            InvalidArgument: It breaks the grammar, or has a label twice.
        """
        named, mark, hexadecimal = text.rpartition(_ID_MARK)
        name, *labels = (named if mark else text).split(",")
        pairs = [label.partition("=") for label in labels]
        if not all(equals and value and IDENTIFIER.fullmatch(label) for label, equals, value in pairs):
            _refuse(text, "expected appc:NAME[,label=value…][@sha512-…]")
        if not IDENTIFIER.fullmatch(name) or len(name) > MAX_NAME_CHARS:
            _refuse(text, f"its name must match {IDENTIFIER.pattern} and have at most {MAX_NAME_CHARS} characters")
        if len({label for label, _, _ in pairs} - {_RESERVED_LABEL}) != len(pairs):
            _refuse(text, "a label is given twice or is called name")
        image_id = parse_image_id(f"sha512-{hexadecimal}") if mark else None
        if mark and image_id is None:
            _refuse(text, "what follows @ must be sha512-<128 hex>")
        return cls.of(name, ((label, value) for label, _, value in pairs), image_id=image_id)

    @classmethod
    def of(cls, name: str, labels: Iterable[tuple[str, str]], *, image_id: Digest | None = None) -> Self:
        """Put a reference together of checked parts; the labels may be in any order."""
        return cls(name=name, labels=tuple(sorted(labels)), image_id=image_id)

    def mismatch(self, name: str, labels: Mapping[str, str], *, defaults: Mapping[str, str]) -> str | None:
        """Say why an image with this name and these labels is not the one that is meant, or None if it is.

        A label that is not asked for may have any value; one of `defaults` must have no other if the image has it at
        all. Where an id is given it decides alone, apart from the name. Source: aci.md, "Dependency Matching".
        """
        if name != self.name:
            return f"it calls itself {name}"
        for label, wanted in () if self.image_id else self.labels:
            if labels.get(label) != wanted:
                return f"its label {label} is {labels.get(label, 'missing')}, wanted is {wanted}"
        asked = dict(self.labels)
        for label, wanted in defaults.items():
            if label not in asked and labels.get(label, wanted) != wanted:
                return f"its label {label} is {labels[label]}, wanted is {wanted}"
        return None

    @override
    def __str__(self) -> str:
        image_id = f"@{image_id_text(self.image_id)}" if self.image_id else ""
        return ",".join((self.name, *(f"{label}={value}" for label, value in self.labels))) + image_id


def image_id_text(digest: Digest) -> str:
    """Return an image id as Appc spells it."""
    return f"{digest.algorithm}-{digest.hex}"


def parse_image_id(text: str) -> Digest | None:
    """Return the digest of an image id, or None if it is none."""
    return Digest("sha512", text.removeprefix("sha512-")) if IMAGE_ID.fullmatch(text) else None


def platform_labels(platform: Platform) -> dict[str, str]:
    """Return the labels os and arch of images for a platform, as Appc names processors."""
    architecture = _ARCHITECTURES.get(platform.architecture, platform.architecture)
    if architecture == "arm":
        architecture = f"arm{platform.variant or 'v7'}l"
    return {"os": platform.os, "arch": architecture}


def platform_members(labels: Mapping[str, str]) -> dict[str, str]:
    """Say what an image with these labels runs on as an OCI configuration does; nothing of what they leave open."""
    system, architecture = labels.get("os"), labels.get("arch")
    if system is None or architecture is None:
        return {} if system is None else {"os": system}
    platform = Platform.normalised(system, *_BIG_ENDIAN.get(architecture, (architecture, None)))
    variant = {"variant": platform.variant} if platform.variant else {}
    return {"os": platform.os, "architecture": platform.architecture, **variant}


def _refuse(text: str, reason: str) -> NoReturn:
    raise InvalidArgument(argument="image", value=f"appc:{text}"[:300], reason=reason)
