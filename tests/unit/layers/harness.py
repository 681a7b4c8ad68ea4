# SPDX-License-Identifier: Apache-2.0
"""Build a layer from an archive and see what came of it."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.needs import missing_root
from tests.support.tar import Entry, tar_bytes
from worker.image import LayerFormat, LayerRecord
from worker.layers.build import build_layer
from worker.layers.directory import BuiltLayer, build_directory
from worker.layers.limits import LayerLimits
from worker.layers.stream import ByteStream
from worker.layers.tar_entry import TarEntry
from worker.layers.tar_reader import TarReader
from worker.layers.whiteouts import AufsWhiteouts, OverlayWhiteouts
from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest

LIMITS = LayerLimits(max_layer_bytes=64 << 20, max_entries=10_000, max_header_bytes=64 << 10)
IS_SQUASHED = missing_root() is not None
OPAQUE_XATTR = f"{'user' if IS_SQUASHED else 'trusted'}.overlay.opaque"
ORIGIN_XATTR = OPAQUE_XATTR.replace("opaque", "origin")


def limits(**changes: int) -> LayerLimits:
    """Return the usual limits, but for `changes`."""
    return replace(LIMITS, **changes)


def chunked(content: bytes, size: int = 1 << 20) -> Iterator[bytes]:
    """Cut `content` as a network would."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


def read_entries(
    tar: bytes, *, chunk_bytes: int = 1 << 20, limits: LayerLimits = LIMITS
) -> list[tuple[TarEntry, bytes]]:
    """Read an archive to its end: the entries and their data."""
    reader = TarReader(ByteStream(chunked(tar, chunk_bytes)), limits)
    return [(entry, b"".join(bytes(view) for view in reader.data())) for entry in reader]


def descriptor_of(blob: bytes) -> Descriptor:
    """Describe `blob` truly."""
    return Descriptor(media_type="application/vnd.oci.image.layer.v1.tar", digest=Digest.of(blob), size_bytes=len(blob))


def build_blob(
    blob: bytes,
    staging_dir: Path,
    *,
    diff_id: Digest,
    descriptor: Descriptor | None = None,
    chunks: Iterable[bytes] | None = None,
    layer_format: LayerFormat = LayerFormat.DIRECTORY,
    limits: LayerLimits = LIMITS,
    is_squashed: bool = IS_SQUASHED,
    on_progress: Callable[[int], None] = lambda _: None,
) -> LayerRecord:
    """Call `build_layer` with what a puller and a store would give it."""
    return build_layer(
        chunked(blob) if chunks is None else chunks,
        descriptor=descriptor or descriptor_of(blob),
        diff_id=diff_id,
        layer_format=layer_format,
        staging_dir=staging_dir,
        limits=limits,
        is_squashed=is_squashed,
        on_progress=on_progress,
    )


def build(archive: bytes | Iterable[Entry], staging_dir: Path, **choices: object) -> LayerRecord:
    """Build an uncompressed archive, given as bytes or as entries."""
    tar = archive if isinstance(archive, bytes) else tar_bytes(archive)
    return build_blob(tar, staging_dir, diff_id=Digest.of(tar), **choices)  # type: ignore[arg-type]


def unpack(
    archive: bytes | Iterable[Entry],
    staging_dir: Path,
    *,
    layer_format: LayerFormat = LayerFormat.DIRECTORY,
    is_squashed: bool = IS_SQUASHED,
) -> BuiltLayer:
    """Build the tree alone: nothing is verified and nothing waits for the disk."""
    tar = archive if isinstance(archive, bytes) else tar_bytes(archive)
    overlay = layer_format is LayerFormat.DIRECTORY
    form = OverlayWhiteouts(is_squashed=is_squashed) if overlay else AufsWhiteouts()
    return build_directory(chunked(tar), form=form, staging_dir=staging_dir, limits=LIMITS, is_squashed=is_squashed)


@dataclass(frozen=True)
class Node:
    """What is at a path; `content` is the data of a file, the target of a link, the number of a device."""

    kind: str
    content: object
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    xattrs: dict[str, bytes]
    links: int


def snapshot(staging_dir: Path) -> dict[str, Node]:
    """Return all that is in the layer's tree, the root as `.`."""
    root = staging_dir / "tree"
    return {str(path.relative_to(root)): _node(path) for path in (root, *root.rglob("*"))}


def shape(staging_dir: Path) -> dict[str, object]:
    """Return the tree's kinds and contents alone, without the root."""
    nodes = snapshot(staging_dir)
    return {
        path: node.content if node.kind in {"file", "symlink"} else node.kind
        for path, node in nodes.items()
        if path != "."
    }


def _node(path: Path) -> Node:
    status = path.lstat()
    kind, content = _kind(path, status)
    names = os.listxattr(path, follow_symlinks=False)
    return Node(
        kind=kind,
        content=content,
        mode=stat.S_IMODE(status.st_mode),
        owner=(status.st_uid, status.st_gid),
        mtime_ns=status.st_mtime_ns,
        xattrs={name: os.getxattr(path, name, follow_symlinks=False) for name in names},
        links=status.st_nlink,
    )


def _kind(path: Path, status: os.stat_result) -> tuple[str, object]:
    device = os.major(status.st_rdev), os.minor(status.st_rdev)
    if stat.S_ISREG(status.st_mode):
        return "file", path.read_bytes()
    if stat.S_ISLNK(status.st_mode):
        return "symlink", os.readlink(path)  # noqa: PTH115 - pathlib would tidy it up
    if stat.S_ISCHR(status.st_mode):
        return ("whiteout", None) if device == (0, 0) else ("char", device)
    if stat.S_ISBLK(status.st_mode):
        return "block", device
    return ("fifo", None) if stat.S_ISFIFO(status.st_mode) else ("directory", None)
