# SPDX-License-Identifier: Apache-2.0
"""What a store hands to a backend: an image's layers as lower directories."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from worker.oci.digest import Digest


class LayerFormat(StrEnum):
    """How a committed layer lies on disk.

    DIRECTORY: an unpacked tree. Whiteouts are 0:0 character devices, opaque directories carry
        `trusted.overlay.opaque=y` (`user.overlay.opaque` when not root), as overlayfs reads them, and a directory
        that holds whiteouts carries an empty `*.overlay.origin`, so that overlayfs hides them also where nothing is
        below. Source: kernel 6.12, Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
    DIRECTORY_AUFS: an unpacked tree with whiteouts as `.wh.` files, as aufs reads them.
    EROFS: the uncompressed tar as it is, and an index of it. It is no lower directory by itself: all layers of an image
        become one, mounted.
    """

    DIRECTORY = "directory"
    DIRECTORY_AUFS = "directory-aufs"
    EROFS = "erofs"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRecord:
    """What is known of a committed layer; `layer.json` beside it.

    Attributes:
        diff_id: Digest of the uncompressed tar.
        layer_format: How the layer lies on disk.
        blob_digest: Digest of the blob it was made from.
        blob_bytes: Size of that blob.
        tar_bytes: Size of the uncompressed tar.
        disk_bytes: What the layer takes on disk, rounded to blocks.
        entries: Entries of the tar that were applied.
        has_whiteouts: Whether it hides anything of the layers below it.
        is_opaque: Whether it hides everything of the layers below it. Overlayfs ignores the mark on a layer's root, so
            the layers below must be left out of the stack.
        is_squashed: Whether ownership and devices were given up because the node does not run as root.
        implied_dirs: Directories the tar does not list although it lists something below them, relative, parents first:
            their attributes belong to the layers below. The root is `.`.
        sparse_bytes: Size of the file that an EROFS layer's sparse files are written out to, 0 without one; None if the
            record is older than this.
    """

    diff_id: Digest
    layer_format: LayerFormat
    blob_digest: Digest
    blob_bytes: int
    tar_bytes: int
    disk_bytes: int
    entries: int
    has_whiteouts: bool
    is_squashed: bool
    is_opaque: bool = False
    implied_dirs: tuple[str, ...] = ()
    sparse_bytes: int | None = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LowerDir:
    """One read-only directory of a rootfs.

    Attributes:
        path: Absolute and existing.
        has_whiteouts: Whether it holds whiteouts, which only some backends can hide when nothing is below.
    """

    path: Path
    has_whiteouts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """A materialised image.

    Attributes:
        digest: Of the manifest.
        layer_format: Of all its layers.
        layers: DiffIDs, base first; the same layer may stand twice.
        lower_dirs: What a backend stacks, base first; at least one, no duplicates.
    """

    digest: Digest
    layer_format: LayerFormat
    layers: tuple[Digest, ...]
    lower_dirs: tuple[LowerDir, ...]
