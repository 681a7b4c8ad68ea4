# SPDX-License-Identifier: Apache-2.0
"""Image configurations."""

import json
from typing import Any

import pytest

from worker.errors import InvalidImage
from worker.oci.config import ImageConfig, check_layers
from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest
from worker.oci.manifest import Manifest
from worker.oci.media_types import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from worker.oci.platform import Platform


def config(**more: Any) -> bytes:
    """Return a configuration of two layers with some members replaced or added."""
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"]}
    document = {"os": "linux", "architecture": "arm", "variant": "v6", "config": {"Env": ["A=b"]}, "rootfs": rootfs}
    return json.dumps({**document, **more}).encode()


def manifest_of(layers: int) -> Manifest:
    """Return a manifest with so many layers."""
    blobs = [Descriptor(media_type=OCI_LAYER, digest=Digest.of(bytes([n])), size_bytes=1) for n in range(layers)]
    config_blob = Descriptor(media_type=OCI_CONFIG, digest=Digest.of(b"c"), size_bytes=1)
    return Manifest(media_type=OCI_MANIFEST, config=config_blob, layers=tuple(blobs))


def test_a_configuration_tells_platform_and_diff_ids() -> None:
    """And keeps the whole document for whoever runs the container."""
    parsed = ImageConfig.parse(config(), image="i")

    assert parsed.platform == Platform("linux", "arm", "v6")
    assert [diff_id.hex[0] for diff_id in parsed.diff_ids] == ["a", "b"]
    assert parsed.document["config"] == {"Env": ["A=b"]}


def test_a_configuration_may_keep_its_platform_to_itself() -> None:
    """Some build tools leave it empty."""
    assert ImageConfig.parse(config(os="", architecture=""), image="i").platform.is_unknown


@pytest.mark.parametrize(
    "wrong",
    [
        {"rootfs": None},
        {"rootfs": {"type": "blobs", "diff_ids": []}},
        {"rootfs": {"diff_ids": []}},
        {"rootfs": {"type": "layers", "diff_ids": "x"}},
        {"rootfs": {"type": "layers", "diff_ids": ["x"]}},
        {"rootfs": {"type": "layers", "diff_ids": [None]}},
        {"os": 1},
        {"architecture": ["amd64"]},
        {"architecture": "amd64\n"},
    ],
)
def test_a_malformed_configuration_is_refused(wrong: dict[str, Any]) -> None:
    """Nothing later has to look at these members again."""
    with pytest.raises(InvalidImage):
        ImageConfig.parse(config(**wrong), image="i")


@pytest.mark.parametrize(
    ("layers", "max_layers", "reason"),
    [(1, 9, "1 layers but its configuration 2"), (3, 9, "3 layers but"), (2, 1, "more than the 1 allowed")],
)
def test_manifest_and_configuration_must_agree(layers: int, max_layers: int, reason: str) -> None:
    """A layer without a DiffID could not be verified, a DiffID without a layer would be missing."""
    with pytest.raises(InvalidImage, match=reason):
        check_layers(manifest_of(layers), ImageConfig.parse(config(), image="i"), image="i", max_layers=max_layers)


def test_an_image_without_layers_is_refused() -> None:
    """There would be nothing to stack."""
    empty = ImageConfig.parse(config(rootfs={"type": "layers"}), image="i")

    with pytest.raises(InvalidImage, match="no layers"):
        check_layers(manifest_of(0), empty, image="i", max_layers=9)


def test_agreeing_layers_pass() -> None:
    """The limit itself is allowed."""
    check_layers(manifest_of(2), ImageConfig.parse(config(), image="i"), image="i", max_layers=2)
