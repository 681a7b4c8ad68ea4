# SPDX-License-Identifier: Apache-2.0
"""Descriptors and the choice among them."""

from typing import Any

import pytest

from worker.errors import InvalidImage
from worker.oci.descriptor import Descriptor, available_platforms, select
from worker.oci.digest import Digest
from worker.oci.media_types import OCI_INDEX, OCI_MANIFEST
from worker.oci.platform import Platform

DIGEST = f"sha256:{'a' * 64}"


def document(**more: Any) -> dict[str, Any]:
    """Return a descriptor with some members replaced or added."""
    return {"mediaType": OCI_MANIFEST, "digest": DIGEST, "size": 7, **more}


def entry(platform: str | None, name: str, *, media_type: str = OCI_MANIFEST) -> Descriptor:
    """Return an index entry whose digest is told apart by `name`."""
    parsed = Platform.parse(platform) if platform else None
    return Descriptor(media_type=media_type, digest=Digest.of(name.encode()), size_bytes=1, platform=parsed)


def test_a_descriptor_is_parsed_whole() -> None:
    """All members arrive; the platform normalised; members we do not know are passed over."""
    parsed = Descriptor.parse(
        document(
            platform={"os": "linux", "architecture": "aarch64", "variant": "v8", "os.version": "1"},
            annotations={"key": "value"},
            urls=["https://example.com/a"],
            data="eA==",
        ),
        image="i",
    )

    assert parsed == Descriptor(
        media_type=OCI_MANIFEST,
        digest=Digest.parse(DIGEST),
        size_bytes=7,
        platform=Platform("linux", "arm64"),
        annotations={"key": "value"},
        urls=("https://example.com/a",),
    )
    assert hash(parsed) == hash(parsed)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": -1},
        {"size": 2**63},
        {"size": 1.5},
        {"size": "7"},
        {"size": True},
        {"size": None},
        {"digest": "sha256:x"},
        {"digest": None},
        {"digest": "sha256:../../x"},
        {"mediaType": ""},
        {"mediaType": None},
        {"mediaType": "a\nb"},
        {"platform": "linux/amd64"},
        {"platform": {"os": 1, "architecture": "amd64"}},
        {"platform": {"os": "linux\n", "architecture": "amd64"}},
        {"annotations": {"a": 1}},
        {"annotations": []},
        {"urls": "https://example.com"},
        {"urls": [1]},
    ],
)
def test_a_malformed_member_is_refused(wrong: dict[str, Any]) -> None:
    """Negative sizes and digests with path components are the classics."""
    with pytest.raises(InvalidImage):
        Descriptor.parse(document(**wrong), image="i")


@pytest.mark.parametrize("wrong", [None, [], "x", 1])
def test_a_descriptor_is_an_object(wrong: object) -> None:
    """Anything else in its place is refused rather than crashed upon."""
    with pytest.raises(InvalidImage, match="not an object"):
        Descriptor.parse(wrong, image="i")


def test_the_best_variant_wins_over_the_first_entry() -> None:
    """A v7 host takes v7 although v6, which it also runs, is listed before."""
    entries = [entry("linux/arm/v6", "v6"), entry("linux/arm/v7", "v7"), entry("linux/amd64", "amd64")]

    assert select(entries, Platform.parse("linux/arm/v7")) == entries[1]
    assert select(entries, Platform.parse("linux/arm/v6")) == entries[0]
    assert select(entries, Platform.parse("linux/arm64")) == entries[1]


def test_among_equals_the_first_entry_wins() -> None:
    """As image-spec asks for."""
    entries = [entry("linux/amd64", "first"), entry("linux/amd64/v1", "second")]

    assert select(entries, Platform.parse("linux/amd64")) == entries[0]


def test_attestations_and_unknown_types_are_passed_over() -> None:
    """Neither is an error, and neither is ever chosen."""
    attestation = entry("unknown/unknown", "attestation")
    signature = entry("linux/amd64", "signature", media_type="application/vnd.example.signature")
    image = entry("linux/amd64", "image")

    assert select([attestation, signature, image], Platform.parse("linux/amd64")) == image
    assert select([attestation, signature], Platform.parse("linux/amd64")) is None


def test_an_entry_without_a_platform_is_the_last_resort() -> None:
    """Its configuration will tell; a named match goes before it, a named mismatch does not."""
    unnamed = entry(None, "unnamed", media_type=OCI_INDEX)
    named = entry("linux/amd64", "named")

    assert select([unnamed, named], Platform.parse("linux/amd64")) == named
    assert select([unnamed, named], Platform.parse("linux/s390x")) == unnamed


def test_available_platforms_are_listed_once() -> None:
    """The list goes into an error message, so attestations stay out of it."""
    entries = [entry(name, "x") for name in ("linux/arm64", "linux/amd64", "linux/arm64", "unknown/unknown", None)]

    assert available_platforms(entries) == "linux/arm64, linux/amd64"
    assert available_platforms([]) == "none"
