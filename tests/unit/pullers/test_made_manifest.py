# SPDX-License-Identifier: Apache-2.0
"""Manifests that are made up."""

from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest
from worker.oci.manifest import Manifest
from worker.oci.media_types import APPC_CONFIG, OCI_CONFIG, OCI_LAYER
from worker.pullers.made_manifest import canonical_json, make_manifest

LAYERS = [Descriptor(media_type=OCI_LAYER, digest=Digest.of(bytes([number])), size_bytes=number) for number in (1, 2)]


def test_a_made_manifest_reads_like_any_other() -> None:
    """With the layers in their order and the configuration's digest and size."""
    for media_type in (OCI_CONFIG, APPC_CONFIG):
        manifest = Manifest.parse(make_manifest(b"{}", LAYERS, config_media_type=media_type), image="i")

        assert list(manifest.layers) == LAYERS
        assert manifest.config == Descriptor(media_type=media_type, digest=Digest.of(b"{}"), size_bytes=2)


def test_one_document_has_one_encoding() -> None:
    """Whatever the order its members were put in."""
    assert canonical_json({"b": 1, "a": [2]}) == canonical_json({"a": [2], "b": 1}) == b'{"a":[2],"b":1}'
