# SPDX-License-Identifier: Apache-2.0
"""What `verify` finds wrong, by kind: the names are part of the wire contract."""

from dataclasses import dataclass
from enum import StrEnum


class ProblemKind(StrEnum):
    """What is wrong. A layer's subject is `<format>/<DiffID>`, an image's its digest, a container's `<id>/<name>`."""

    LAYER_RECORD_CORRUPT = "layer-record-corrupt"
    """`layer.json` is missing, does not parse, or speaks of another layer."""
    LAYER_DATA_MISSING = "layer-data-missing"
    """A file of the layer, or its tree, is not there."""
    LAYER_SIZE_WRONG = "layer-size-wrong"
    """The tar, or what its sparse files are written out to, is longer or shorter than the layer's record says."""
    LAYER_DIGEST_WRONG = "layer-digest-wrong"
    """The tar does not hash to the DiffID."""
    LAYER_INDEX_WRONG = "layer-index-wrong"
    """The index is not the one that the tar gives."""
    LAYER_BLOB_WRONG = "layer-blob-wrong"
    """The sparse files written out are not those of the tar."""
    LAYER_UNREADABLE = "layer-unreadable"
    """The filesystem cannot read part of the layer."""

    IMAGE_CORRUPT = "image-corrupt"
    """Manifest or configuration is missing, or does not hash to what it is named by; or they contradict each other."""
    IMAGE_LAYER_MISSING = "image-layer-missing"
    """A layer of an image in use is in no format in the store."""
    IMAGE_MERGED_WRONG = "image-merged-wrong"
    """The file that merges the layers is not what the layers give."""

    REFERENCE_CORRUPT = "reference-corrupt"
    """A file that says what a reference resolved to says nothing."""
    REFERENCE_DANGLING = "reference-dangling"
    """A reference leads to an image that is not there."""
    REF_CORRUPT = "ref-corrupt"
    """A ref names nobody, and keeps its image for nobody."""

    CONTAINER_RECORD_CORRUPT = "container-record-corrupt"
    """A container's record does not parse."""
    CONTAINER_IMAGE_MISSING = "container-image-missing"
    """A recorded rootfs stands on an image that is not there."""
    CONTAINER_REF_MISSING = "container-ref-missing"
    """A recorded rootfs has no ref, so that prune would take its image."""
    CONTAINER_LAYER_MISSING = "container-layer-missing"
    """A recorded rootfs stands on a layer that is not there."""
    CONTAINER_NOT_MOUNTED = "container-not-mounted"
    """A recorded rootfs is not there; `recover` brings it back."""
    CONTAINER_MOUNT_WRONG = "container-mount-wrong"
    """What the rootfs stands on is mounted no more, from elsewhere, or from files replaced since: provision it anew."""

    STRAY = "stray"
    """Something in the store that bears no name of the store."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """One mismatch.

    Attributes:
        kind: What is wrong.
        subject: With what.
        detail: One sentence: expected and found.
    """

    kind: ProblemKind
    subject: str
    detail: str
