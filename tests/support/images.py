# SPDX-License-Identifier: Apache-2.0
"""An image builder: layers described as entries, out come blobs, manifests, indexes.

Written apart from the product, so that the two do not share a mistake. Everything is deterministic::

    base = layer(Dir("etc"), File("etc/motd", b"hello"), Symlink("etc/link", "motd"))
    top = layer(Whiteout("etc/motd"), compression="zstd")
    image = build_image([base, top])
    write_layout(tmp_path / "layout", {"latest": image})
"""

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import zstandard

from tests.support.tar import Entry, tar_bytes

Compression = Literal["none", "gzip", "zstd"]
Style = Literal["oci", "docker"]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

_SUFFIX = {
    ("oci", "none"): "",
    ("oci", "gzip"): "+gzip",
    ("oci", "zstd"): "+zstd",
    ("docker", "none"): "",
    ("docker", "gzip"): ".gzip",
    ("docker", "zstd"): ".zstd",
}


def sha256(content: bytes) -> str:
    """Return `sha256:<hex>` of `content`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def dump(document: object) -> bytes:
    """Return the JSON document as bytes, always the same ones."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


@dataclass(frozen=True)
class Blob:
    """Bytes with a media type."""

    content: bytes = field(repr=False)
    media_type: str

    @property
    def digest(self) -> str:
        """The content's digest."""
        return sha256(self.content)

    def descriptor(self, **more: object) -> dict[str, Any]:
        """Return the descriptor, with `more` properties such as `platform` or `annotations`."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.content), **more}


@dataclass(frozen=True)
class Layer:
    """An uncompressed tar and how its blob is compressed."""

    tar: bytes = field(repr=False)
    compression: Compression = "gzip"

    @property
    def diff_id(self) -> str:
        """The digest of the uncompressed tar."""
        return sha256(self.tar)

    @property
    def compressed(self) -> bytes:
        """The blob's bytes."""
        if self.compression == "gzip":
            return gzip.compress(self.tar, compresslevel=1, mtime=0)
        if self.compression == "zstd":
            return zstandard.ZstdCompressor(level=1).compress(self.tar)
        return self.tar

    def blob(self, style: Style) -> Blob:
        """Return the blob with the media type of `style`."""
        base = OCI_LAYER if style == "oci" else DOCKER_LAYER
        return Blob(self.compressed, base + _SUFFIX[style, self.compression])


def layer(*entries: Entry, compression: Compression = "gzip") -> Layer:
    """Return a layer made of `entries` in the order given."""
    return Layer(tar_bytes(entries), compression)


@dataclass(frozen=True)
class Image:
    """A manifest, its configuration and its layers."""

    manifest: Blob
    config: Blob
    layers: tuple[Layer, ...]
    layer_blobs: tuple[Blob, ...]
    platform: Mapping[str, str]

    @property
    def digest(self) -> str:
        """The manifest's digest."""
        return self.manifest.digest

    @property
    def diff_ids(self) -> list[str]:
        """The layers' DiffIDs, base first."""
        return [item.diff_id for item in self.layers]

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Everything the manifest refers to."""
        return (self.config, *self.layer_blobs)

    def descriptor(self, **more: object) -> dict[str, Any]:
        """Return the manifest's descriptor for an index."""
        return self.manifest.descriptor(platform=dict(self.platform), **more)


@dataclass(frozen=True)
class Index:
    """An index over manifests and other indexes."""

    manifest: Blob
    children: tuple["Image | Index", ...]

    @property
    def digest(self) -> str:
        """The index's digest."""
        return self.manifest.digest

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Everything the index leads to, itself excluded."""
        return tuple(blob for child in self.children for blob in (*child.blobs, child.manifest))

    def descriptor(self, **more: object) -> dict[str, Any]:
        """Return the index's descriptor for another index."""
        return self.manifest.descriptor(**more)


def build_config(layers: Sequence[Layer], platform: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the image configuration of `layers`."""
    history = [{"created": "2024-01-01T00:00:00Z", "created_by": f"layer {number}"} for number in range(len(layers))]
    rootfs = {"type": "layers", "diff_ids": [item.diff_id for item in layers]}
    return {"created": "2024-01-01T00:00:00Z", **platform, "config": dict(config), "history": history, "rootfs": rootfs}


def build_image(
    layers: Sequence[Layer],
    *,
    style: Style = "oci",
    platform: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> Image:
    """Build an image of `layers`, base first.

    Args:
        layers: Base first.
        style: Media types of the OCI or of Docker's schema 2.
        platform: os, architecture, variant; this machine's by default.
        config: What a container runs: Env, Cmd, …
        manifest: Properties that go over those of the manifest, right or wrong.
    """
    platform = platform or {"os": "linux", "architecture": "amd64"}
    types = (OCI_CONFIG, OCI_MANIFEST) if style == "oci" else (DOCKER_CONFIG, DOCKER_MANIFEST)
    config_blob = Blob(dump(build_config(layers, platform, config or {"Cmd": ["/bin/sh"]})), types[0])
    layer_blobs = tuple(item.blob(style) for item in layers)
    document = {
        "schemaVersion": 2,
        "mediaType": types[1],
        "config": config_blob.descriptor(),
        "layers": [blob.descriptor() for blob in layer_blobs],
        **(manifest or {}),
    }
    return Image(Blob(dump(document), types[1]), config_blob, tuple(layers), layer_blobs, platform)


def build_index(
    children: Iterable["Image | Index"], *, style: Style = "oci", extra: Iterable[Mapping[str, Any]] = ()
) -> Index:
    """Build an index over `children`; `extra` descriptors stand before them, right or wrong."""
    children = tuple(children)
    media_type = OCI_INDEX if style == "oci" else DOCKER_INDEX
    manifests = [*map(dict, extra), *(child.descriptor() for child in children)]
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}
    return Index(Blob(dump(document), media_type), children)
