# SPDX-License-Identifier: Apache-2.0
"""`AppcManifest`: the manifest of an App Container image, validated; every error names the member that is wrong.

Source: appc spec 0.8.11, aci.md, "Image Manifest Schema"; members that it does not know are passed over.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from worker.oci.appc import IDENTIFIER, IMAGE_ID, MAX_NAME_CHARS, AppcReference, parse_image_id
from worker.oci.appc_app import check_app
from worker.oci.document import decode_object
from worker.oci.field import Field

_KIND = "ImageManifest"
_SEMVER = re.compile(r"\d{1,9}(?:\.\d{1,9}){2}(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")
_WEB_URL = re.compile(r"https?://\S+")
_ABSOLUTE_PATH = re.compile(r"/[^\0]*")
_ANNOTATIONS = {
    "created": (_TIMESTAMP, "a time as in RFC 3339"),
    "homepage": (_WEB_URL, "an http or https URL"),
    "documentation": (_WEB_URL, "an http or https URL"),
}
_LINUX = ("amd64", "i386", "aarch64", "aarch64_be", "armv6l", "armv7l", "armv7b", "ppc64", "ppc64le", "s390x")
_SYSTEMS = {
    "linux": frozenset({*_LINUX, "riscv64"}),
    "freebsd": frozenset({"amd64", "i386", "arm"}),
    "darwin": frozenset({"x86_64", "i386"}),
}
"""Operating systems and the processors they may be for; riscv64 came after the specification."""
_MAX_SIZE_BYTES = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AppcDependency:
    """An image whose files lie below those of the image that names it.

    Attributes:
        reference: Name, labels and perhaps id.
        size_bytes: What it must have; None if that is not told.
    """

    reference: AppcReference
    size_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppcManifest:
    """A manifest.

    Attributes:
        name: The image's.
        labels: By name.
        dependencies: In their order: later ones lie above earlier ones.
        path_whitelist: The only paths the rootfs may have, without slashes at their ends; empty: all.
        document: The whole manifest, decoded; not to be changed.
    """

    name: str
    labels: Mapping[str, str]
    dependencies: tuple[AppcDependency, ...]
    path_whitelist: frozenset[str]
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, content: bytes, *, image: str) -> Self:
        """Parse a manifest.

        Raises:
            InvalidImage: It is no I-JSON object, or a member is missing or wrong; the member is named.
        """
        document = decode_object(content, image=image, subject="manifest")
        root = Field(image, "", document)
        _check_kind(root)
        if not (app := root.member("app")).is_absent:
            check_app(app)
        _check_annotations(root.member("annotations"))
        return cls(
            name=_parse_name(root.member("name")),
            labels=_parse_labels(root.member("labels")),
            dependencies=tuple(_parse_dependency(item) for item in root.member("dependencies").items()),
            path_whitelist=frozenset(_parse_path(item) for item in root.member("pathWhitelist").items()),
            document=document,
        )


def _check_kind(root: Field) -> None:
    kind = root.member("acKind")
    if kind.text() != _KIND:
        kind.refuse(f"is {kind.value!r:.80}, expected {_KIND}")
    root.member("acVersion").text(_SEMVER, expected="a version as in SemVer 2")


def _parse_name(name: Field) -> str:
    text = name.text(IDENTIFIER, expected=f"a name that matches {IDENTIFIER.pattern}")
    if len(text) > MAX_NAME_CHARS:
        name.refuse(f"has more than {MAX_NAME_CHARS} characters")
    return text


def _parse_labels(labels: Field) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in labels.items():
        name = item.member("name")
        if _parse_name(name) in {"name", *found}:
            name.refuse(f"is {name.value!r}, which is reserved or given twice")
        found[name.value] = item.member("value").text()
    _check_system(labels, found)
    return found


def _check_system(labels: Field, found: Mapping[str, str]) -> None:
    """Refuse what is no known pair of operating system and processor; either may be absent."""
    system, architecture = found.get("os"), found.get("arch")
    if system is not None and system not in _SYSTEMS:
        labels.refuse(f"have os {system!r:.40}, expected one of {', '.join(_SYSTEMS)}")
    if system is not None and architecture is not None and architecture not in _SYSTEMS[system]:
        expected = ", ".join(sorted(_SYSTEMS[system]))
        labels.refuse(f"have arch {architecture!r:.40}, expected for {system} one of {expected}")


def _parse_dependency(item: Field) -> AppcDependency:
    image_id, size = item.member("imageID"), item.member("size")
    reference = AppcReference.of(
        _parse_name(item.member("imageName")),
        _parse_labels(item.member("labels")).items(),
        image_id=None if image_id.is_absent else parse_image_id(image_id.text(IMAGE_ID, expected="sha512-<128 hex>")),
    )
    return AppcDependency(reference=reference, size_bytes=None if size.is_absent else size.integer(0, _MAX_SIZE_BYTES))


def _parse_path(item: Field) -> str:
    parts = item.text(_ABSOLUTE_PATH, expected="an absolute path").split("/")
    if ".." in parts:
        item.refuse("climbs")
    return "/".join(part for part in parts if part not in ("", "."))


def _check_annotations(annotations: Field) -> None:
    seen: set[str] = set()
    for item in annotations.items():
        name, value = item.member("name"), item.member("value")
        if _parse_name(name) in seen:
            name.refuse(f"is {name.value!r}, which is given twice")
        seen.add(name.value)
        form, expected = _ANNOTATIONS.get(name.value, (None, "a string"))
        value.text(form, expected=expected)
