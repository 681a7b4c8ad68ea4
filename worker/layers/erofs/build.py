# SPDX-License-Identifier: Apache-2.0
"""Build a layer as its tar and an index of it, in the one pass in which the tar goes by."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from worker.layers.builder import BuiltLayer
from worker.layers.erofs.blob import Blob
from worker.layers.erofs.index import dump_index
from worker.layers.erofs.inode import BLOB_DEVICE, TAR_DEVICE, encode_file, encode_special
from worker.layers.erofs.kept_tar import KeptTar
from worker.layers.erofs.layer_tree import LayerTree
from worker.layers.limits import LayerLimits
from worker.layers.refusal import Refusal
from worker.layers.stream import ByteStream
from worker.layers.tar_entry import EntryType, TarEntry
from worker.layers.tar_reader import TarReader

TAR = "layer.tar"
"""The uncompressed tar, byte for byte."""
BLOB = "layer.blob"
"""Sparse files; only if there are any."""
INDEX = "layer.idx"

_BLOCK_BYTES = 4096


def build_erofs(
    chunks: Iterator[bytes],
    *,
    staging_dir: Path,
    limits: LayerLimits,
    is_squashed: bool,  # noqa: ARG001 - who cannot mount does not choose this format
) -> BuiltLayer:
    """Keep a tar in `staging_dir` and index it.

    Takes all of `chunks`. Effect: not durable yet, but mostly on its way to the disk.

    Raises:
        Refusal: The archive is at fault; `entry` says where.
        Excess: It goes beyond a limit.
        OSError: The node is at fault.
    """
    with KeptTar(staging_dir / TAR) as tar, Blob(staging_dir / BLOB) as blob:
        layer = read_layer(tar.keeping(chunks), blob=blob, limits=limits)
        devices = BLOB_DEVICE if blob.is_used else TAR_DEVICE
        index_bytes = _write(staging_dir / INDEX, dump_index(layer.root, device_count=devices))
        return BuiltLayer(
            disk_bytes=_rounded(tar.size_bytes) + _rounded(index_bytes) + blob.disk_bytes,
            entries=layer.entries,
            has_whiteouts=layer.has_whiteouts,
            is_opaque=layer.root.is_opaque,
            implied_dirs=(),
            sparse_bytes=blob.size_bytes,
        )


def read_layer(chunks: Iterator[bytes], *, blob: Blob, limits: LayerLimits) -> LayerTree:
    """Read a tar to its end and return what the layer has, hides and implies; sparse files go into `blob`.

    Raises:
        Refusal: The archive is at fault; `entry` says where.
        Excess: It goes beyond a limit.
    """
    reader = TarReader(ByteStream(chunks), limits)
    layer = LayerTree(max_implied_bytes=limits.max_implied_bytes, max_index_bytes=limits.max_index_bytes)
    for entry in reader:
        try:
            _apply(layer, entry, reader, blob)
        except Refusal as refusal:
            refusal.entry = refusal.entry or entry.name
            raise
    layer.finish()
    return layer


def _apply(layer: LayerTree, entry: TarEntry, reader: TarReader, blob: Blob) -> None:
    place = layer.take_place(entry)
    if place is None:
        return
    if entry.type is EntryType.CHARACTER_DEVICE and entry.device == (0, 0):
        raise Refusal("character device 0:0 is a whiteout in disguise")
    if entry.type is not EntryType.REGULAR:
        inode = encode_special(entry)
    elif entry.extents is None:
        inode = encode_file(entry, device=TAR_DEVICE, offset=entry.data_offset)
    else:
        offset = blob.append(reader.data(), entry.extents, size_bytes=entry.size_bytes)
        inode = encode_file(entry, device=BLOB_DEVICE, offset=offset)
    layer.put_file(place, inode)


def _write(path: Path, pieces: Iterable[bytes]) -> int:
    """Write a new file and return its size."""
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
        return file.tell()


def _rounded(size_bytes: int) -> int:
    return size_bytes + -size_bytes % _BLOCK_BYTES
