# SPDX-License-Identifier: Apache-2.0
"""From descriptors to one image: shared by every puller."""

from typing import Any

import pytest

from tests.support.images import Blob, Image, Index, build_image, build_index, dump, layer
from tests.support.tar import File
from worker.errors import InvalidImage, PlatformNotFound
from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest
from worker.oci.platform import Platform
from worker.pullers.resolve import MAX_INDEX_DEPTH, Wanted, resolve

WANTED = Wanted(image="i", platform=Platform("linux", "amd64"), max_layers=10)


def image_of(text: str, *, architecture: str = "amd64", **manifest: Any) -> Image:
    """Return an image that no other text gives."""
    platform = {"os": "linux", "architecture": architecture}
    return build_image([layer(File(text))], platform=platform, manifest=manifest)


class Source:
    """Documents by digest, counting what is read."""

    def __init__(self, *items: Image | Index) -> None:
        self.blobs: dict[str, Blob] = {b.digest: b for item in items for b in (*item.blobs, item.manifest)}
        self.entries = [Descriptor.parse(item.descriptor(), image="i") for item in items]
        self.read_types: list[str] = []

    def read(self, descriptor: Descriptor) -> bytes:
        """Return a document."""
        self.read_types.append(descriptor.media_type.rpartition("/")[2].split("+")[0].removeprefix("vnd.oci.image."))
        return self.blobs[str(descriptor.digest)].content


def test_only_what_leads_to_the_image_is_read() -> None:
    """One read per step: index, manifest, configuration; nothing of other platforms, no layer."""
    source = Source(build_index([image_of("arm", architecture="arm64"), image_of("amd")]))

    found = resolve(source.entries, source.read, WANTED)

    assert source.read_types == ["index.v1", "manifest.v1", "config.v1"]
    assert found.digest == Digest.of(found.manifest)
    assert found.image_config.platform == Platform("linux", "amd64")


def test_indexes_may_be_nested_to_the_bound_and_no_further() -> None:
    """The bound is exact."""
    item: Image | Index = image_of("deep")
    for _ in range(MAX_INDEX_DEPTH):
        item = build_index([item])
    source, deeper = Source(item), Source(build_index([item]))

    assert resolve(source.entries, source.read, WANTED).layers
    with pytest.raises(InvalidImage, match="inside each other"):
        resolve(deeper.entries, deeper.read, WANTED)


def test_attestations_are_passed_over() -> None:
    """Build tools put manifests of platform unknown/unknown beside the images."""
    attestation = image_of("attestation", architecture="unknown")
    entry = attestation.manifest.descriptor(platform={"os": "unknown", "architecture": "unknown"})
    image = image_of("amd")
    source = Source(build_index([image], extra=[entry]))

    assert str(resolve(source.entries, source.read, WANTED).digest) == image.digest


def test_a_platform_that_is_missing_is_named_with_those_that_are_there() -> None:
    """The error says what could be asked for."""
    source = Source(image_of("one", architecture="arm64"), image_of("two", architecture="s390x"))

    with pytest.raises(PlatformNotFound, match="no manifest for linux/amd64; it has linux/arm64, linux/s390x"):
        resolve(source.entries, source.read, WANTED)


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ({"layers": []}, "its manifest lists 0 layers but its configuration 1"),
        ({"config": Blob(b"{}", "application/vnd.example+json").descriptor()}, "not a container image"),
        ({"manifests": []}, "as a manifest and as an index"),
        ({"schemaVersion": 1}, "schema 1"),
    ],
)
def test_a_manifest_that_cannot_be_unpacked_is_refused(manifest: dict[str, Any], reason: str) -> None:
    """Each for its own reason."""
    source = Source(image_of("odd", **manifest))

    with pytest.raises(InvalidImage, match=reason):
        resolve(source.entries, source.read, WANTED)


def test_an_index_that_names_the_platform_has_the_say() -> None:
    """Images built for one machine on another often have the builder's platform in their configuration."""
    image = image_of("built elsewhere", architecture="arm64")
    entry = image.manifest.descriptor(platform={"os": "linux", "architecture": "amd64"})
    named, unnamed = (
        Source(build_index([], extra=[entry])),
        Source(build_index([], extra=[image.manifest.descriptor()])),
    )
    for source in (named, unnamed):
        source.blobs |= {blob.digest: blob for blob in (*image.blobs, image.manifest)}

    assert str(resolve(named.entries, named.read, WANTED).digest) == image.digest
    with pytest.raises(PlatformNotFound, match="it has linux/arm64"):
        resolve(unnamed.entries, unnamed.read, WANTED)


def test_a_configuration_without_a_platform_is_taken() -> None:
    """Some tools leave it out; there is nothing to check against."""
    image = image_of("unsaid")
    document = {"rootfs": {"type": "layers", "diff_ids": image.diff_ids}}
    config = Blob(dump(document), image.config.media_type)
    other = image_of("unsaid", config=config.descriptor())
    source = Source(other)
    source.blobs[config.digest] = config

    assert resolve(source.entries, source.read, WANTED).image_config.platform.is_unknown
