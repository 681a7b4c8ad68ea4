# SPDX-License-Identifier: Apache-2.0
"""Manifests and indexes."""

import json
from typing import Any

import pytest

from worker.errors import InvalidImage
from worker.oci.manifest import Index, Manifest, parse_manifest_or_index
from worker.oci.media_types import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1_SIGNED,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)


def descriptor(media_type: str, digit: str = "a") -> dict[str, Any]:
    """Return a descriptor."""
    return {"mediaType": media_type, "digest": f"sha256:{digit * 64}", "size": 7}


def manifest(**more: Any) -> dict[str, Any]:
    """Return an OCI manifest with some members replaced or added."""
    layers = [descriptor(OCI_LAYER_GZIP, "b"), descriptor(OCI_LAYER_GZIP, "c"), descriptor(OCI_LAYER_GZIP, "b")]
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG),
        "layers": layers,
        **more,
    }


def index(**more: Any) -> dict[str, Any]:
    """Return an OCI index with some members replaced or added."""
    entries = [descriptor(OCI_MANIFEST), descriptor("application/vnd.example.thing+json", "d")]
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, **more}


def encoded(document: dict[str, Any], *without: str) -> bytes:
    """Return the document as bytes, without some members."""
    return json.dumps({name: value for name, value in document.items() if name not in without}).encode()


def test_a_manifest_lists_its_layers_in_order() -> None:
    """Base first, and a layer that stands twice stays twice."""
    parsed = Manifest.parse(encoded(manifest()), image="i", media_type=OCI_MANIFEST)

    assert parsed.media_type == OCI_MANIFEST
    assert [layer.digest.hex[0] for layer in parsed.layers] == ["b", "c", "b"]
    assert parsed.config.media_type == OCI_CONFIG


def test_dockers_manifest_is_one_too() -> None:
    """Schema 2 has the same form under other names."""
    document = manifest(
        mediaType=DOCKER_MANIFEST, config=descriptor(DOCKER_CONFIG), layers=[descriptor(DOCKER_LAYER_GZIP)]
    )

    assert len(Manifest.parse(encoded(document), image="i").layers) == 1


@pytest.mark.parametrize("told", [None, "application/json", "text/plain"])
def test_a_document_without_a_media_type_is_known_by_its_members(told: str | None) -> None:
    """OCI allows to leave it out, and plain web servers say nothing of use."""
    assert isinstance(parse_manifest_or_index(encoded(manifest(), "mediaType"), image="i", media_type=told), Manifest)
    assert isinstance(parse_manifest_or_index(encoded(index(), "mediaType"), image="i", media_type=told), Index)


def test_an_index_keeps_entries_of_unknown_types() -> None:
    """An unknown media type in an index must not be an error."""
    parsed = Index.parse(encoded(index()), image="i", media_type=OCI_INDEX)

    assert [entry.media_type for entry in parsed.manifests] == [OCI_MANIFEST, "application/vnd.example.thing+json"]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (manifest(manifests=[]), OCI_MANIFEST),
        (manifest(manifests=[descriptor(OCI_MANIFEST)]), None),
        (index(layers=[]), OCI_INDEX),
        (index(config=descriptor(OCI_CONFIG)), OCI_INDEX),
        (index(config=descriptor(OCI_CONFIG)), None),
        (manifest(fsLayers=[]), OCI_MANIFEST),
        (manifest(), OCI_INDEX),
        (manifest(), DOCKER_MANIFEST),
        (index(), OCI_MANIFEST),
        (index(), DOCKER_INDEX),
        (manifest(mediaType=OCI_INDEX), OCI_INDEX),
        (index(mediaType=OCI_MANIFEST), OCI_MANIFEST),
        (manifest(mediaType=7), None),
    ],
)
def test_a_document_that_can_be_read_in_two_ways_is_refused(document: dict[str, Any], told: str | None) -> None:
    """CVE-2021-41190: one digest must not be two images."""
    with pytest.raises(InvalidImage):
        parse_manifest_or_index(encoded(document), image="i", media_type=told)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"schemaVersion": 1, "name": "a", "fsLayers": [], "history": []}, "application/json"),
        ({"schemaVersion": 1, "fsLayers": []}, DOCKER_SCHEMA1_SIGNED),
        (manifest(), DOCKER_SCHEMA1_SIGNED),
    ],
)
def test_schema_1_is_refused_with_the_way_out(document: dict[str, Any], told: str) -> None:
    """The message says what somebody can do about it."""
    with pytest.raises(InvalidImage, match="push it again"):
        parse_manifest_or_index(encoded(document), image="i", media_type=told)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (manifest(schemaVersion=3), "schemaVersion"),
        (manifest(schemaVersion="2"), "schemaVersion"),
        (manifest(config=None), "descriptor is not an object"),
        (manifest(layers=None), "layers are not a list"),
        (manifest(layers={}), "layers are not a list"),
        (manifest(layers=[None]), "descriptor is not an object"),
        (manifest(config=descriptor("application/vnd.cncf.helm.config.v1+json")), "artifact of type .*helm"),
        (manifest(layers=[descriptor("application/vnd.in-toto+json")]), "layer 0 has media type .*in-toto"),
        (manifest(mediaType="text/html"), "neither a manifest nor an index"),
        (index(manifests=None), "manifests are not a list"),
        (index(manifests=[{}]), "no mediaType"),
    ],
)
def test_what_breaks_the_specification_is_refused(document: dict[str, Any], reason: str) -> None:
    """The reason says what is wrong and where."""
    with pytest.raises(InvalidImage, match=reason):
        parse_manifest_or_index(encoded(document), image="i")


def test_who_asks_for_one_kind_gets_no_other() -> None:
    """The two parsers refuse each other's documents."""
    with pytest.raises(InvalidImage, match="a manifest was expected"):
        Manifest.parse(encoded(index()), image="i")
    with pytest.raises(InvalidImage, match="an index was expected"):
        Index.parse(encoded(manifest()), image="i")
