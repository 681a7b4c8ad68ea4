# SPDX-License-Identifier: Apache-2.0
"""The media types an image is made of, and the sets that decide how content is read.

Source: image-spec v1.1.1, media-types.md; distribution, docs/spec/manifest-v2-2.md, "Media Types".
"""

from typing import Final

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_NONDISTRIBUTABLE: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCI_NONDISTRIBUTABLE_GZIP: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
OCI_NONDISTRIBUTABLE_ZSTD: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"

DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD: Final = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_FOREIGN: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"
DOCKER_FOREIGN_GZIP: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

APPC_CONFIG: Final = "application/vnd.rootfs-provisioner.appc.config.v1+json"
"""Our own: the configuration that the Appc puller makes of ACIs. Of outside it is an artifact's type like others."""

DOCKER_SCHEMA1: Final = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"

INDEXES: Final = frozenset({OCI_INDEX, DOCKER_INDEX})
"""Lists of manifests, one per platform."""

MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
"""Manifests of one image."""

SCHEMA1: Final = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})
"""Docker's first manifest format, which names layers by no verifiable DiffID and is refused."""

GENERIC: Final = frozenset({"application/json", "application/octet-stream", "binary/octet-stream", "text/plain"})
"""What servers answer that do not know the type: it says nothing, so the content decides."""

CONFIGS: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream"})
"""Configurations of container images; Docker before 1.10 pushed the generic type. Others mark artifacts."""

FOREIGN_LAYERS: Final = frozenset(
    {
        OCI_NONDISTRIBUTABLE,
        OCI_NONDISTRIBUTABLE_GZIP,
        OCI_NONDISTRIBUTABLE_ZSTD,
        DOCKER_FOREIGN,
        DOCKER_FOREIGN_GZIP,
    }
)
"""Layers a registry may not hold; their descriptor's `urls` say who does."""

GZIP_LAYERS: Final = frozenset({OCI_LAYER_GZIP, OCI_NONDISTRIBUTABLE_GZIP, DOCKER_LAYER_GZIP, DOCKER_FOREIGN_GZIP})
"""Layers compressed with gzip."""

ZSTD_LAYERS: Final = frozenset({OCI_LAYER_ZSTD, OCI_NONDISTRIBUTABLE_ZSTD, DOCKER_LAYER_ZSTD})
"""Layers compressed with zstd."""

TAR_LAYERS: Final = frozenset({OCI_LAYER, OCI_NONDISTRIBUTABLE, DOCKER_LAYER, DOCKER_FOREIGN})
"""Layers not compressed."""

LAYERS: Final = GZIP_LAYERS | ZSTD_LAYERS | TAR_LAYERS
"""Layers that can be unpacked."""
