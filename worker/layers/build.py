# SPDX-License-Identifier: Apache-2.0
"""`build_layer`: from a blob's chunks to a complete layer, in one pass and bounded memory."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from worker.errors import InvalidLayer, LayerLimitExceeded
from worker.image import LayerFormat, LayerRecord
from worker.layers.ahead import Ahead
from worker.layers.builder import BuiltLayer, LayerBuilder
from worker.layers.directory import build_directory
from worker.layers.erofs.build import build_erofs
from worker.layers.inflate import inflate
from worker.layers.limits import LayerLimits
from worker.layers.record import write_record
from worker.layers.refusal import Excess, Refusal, shown
from worker.layers.verified import BlobChunks, TarChunks
from worker.layers.whiteouts import AufsWhiteouts, OverlayWhiteouts
from worker.linux.durable import reporting_full_disk, sync_files, sync_filesystem
from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest
from worker.settings import MIB

_AHEAD_BYTES = 4 * MIB
"""A smaller blob is done before two threads have paid for themselves."""

RECORD = "layer.json"
"""The name of the record in a layer's directory."""


def _build_for_overlay(
    chunks: Iterator[bytes], *, staging_dir: Path, limits: LayerLimits, is_squashed: bool
) -> BuiltLayer:
    form = OverlayWhiteouts(is_squashed=is_squashed)
    return build_directory(chunks, form=form, staging_dir=staging_dir, limits=limits, is_squashed=is_squashed)


def _build_for_aufs(
    chunks: Iterator[bytes], *, staging_dir: Path, limits: LayerLimits, is_squashed: bool
) -> BuiltLayer:
    form = AufsWhiteouts()
    return build_directory(chunks, form=form, staging_dir=staging_dir, limits=limits, is_squashed=is_squashed)


_BUILDERS: dict[LayerFormat, LayerBuilder] = {
    LayerFormat.DIRECTORY: _build_for_overlay,
    LayerFormat.DIRECTORY_AUFS: _build_for_aufs,
    LayerFormat.EROFS: build_erofs,
}
_SYNCS: dict[LayerFormat, Callable[[Path], None]] = {
    LayerFormat.DIRECTORY: sync_filesystem,
    LayerFormat.DIRECTORY_AUFS: sync_filesystem,
    LayerFormat.EROFS: sync_files,
}
"""How each format's files are made durable: many small ones all at once, with whatever else is dirty; or only these."""


def build_layer(  # noqa: PLR0913 - the whole of the package's contract, all but the data by keyword
    chunks: Iterable[bytes],
    *,
    descriptor: Descriptor,
    diff_id: Digest,
    layer_format: LayerFormat,
    staging_dir: Path,
    limits: LayerLimits,
    is_squashed: bool,
    on_progress: Callable[[int], None],
) -> LayerRecord:
    """Make a layer of its blob.

    Args:
        chunks: The blob from its first byte; any sizes.
        descriptor: What the blob must be.
        diff_id: What its uncompressed tar must be.
        layer_format: How the layer is to lie on disk.
        staging_dir: An empty directory that is the caller's alone.
        limits: How far the layer may go.
        is_squashed: Give up ownership and devices, for a node that does not run as root.
        on_progress: Called with the count of further bytes of the blob taken. What it raises goes through.

    Effect: on return `staging_dir` holds the layer and its record, verified; `make_durable` is the next step. After an
        error it holds anything, which the caller deletes.

    Returns:
        The record, which is also in `staging_dir`.

    Raises:
        SizeMismatch: The blob is longer or shorter than its descriptor says.
        DigestMismatch: The blob or the tar is something else.
        InvalidLayer: The layer is what it should be, and is corrupt, hostile or uses what is not supported.
        LayerLimitExceeded: It goes beyond a limit.
        StorageExhausted: The store is full; a retry can help.
        OSError: The node fails in another way.
    """
    blob = BlobChunks(chunks, descriptor, on_progress=on_progress)
    with reporting_full_disk(staging_dir), _blaming(blob, descriptor):
        with _ahead(blob, descriptor) as compressed:
            plain = inflate(compressed, max_window_bytes=limits.max_window_bytes)
            tar = TarChunks(plain, diff_id, max_bytes=limits.max_layer_bytes)
            with _ahead(tar, descriptor) as content:
                built = _BUILDERS[layer_format](
                    content, staging_dir=staging_dir, limits=limits, is_squashed=is_squashed
                )
                deque(content, maxlen=0)
        record = LayerRecord(
            diff_id=diff_id,
            layer_format=layer_format,
            blob_digest=descriptor.digest,
            blob_bytes=descriptor.size_bytes,
            tar_bytes=tar.bytes_taken,
            is_squashed=is_squashed,
            **dataclasses.asdict(built),
        )
        write_record(staging_dir / RECORD, record)
    return record


def make_durable(staging_dir: Path, *, layer_format: LayerFormat) -> None:
    """Let what `build_layer` made survive power loss, for whoever renames it into place.

    Apart from it because it can wait for whatever else is dirty: what is not needed any more goes before.

    Raises:
        StorageExhausted: The store is full; a retry can help.
        OSError: The disk failed.
    """
    with reporting_full_disk(staging_dir):
        _SYNCS[layer_format](staging_dir)


def _ahead(chunks: Iterator[bytes], descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
    """Give a large layer threads of its own, one to fetch and hash, one to inflate and hash; the caller writes."""
    return Ahead(chunks) if descriptor.size_bytes >= _AHEAD_BYTES else nullcontext(chunks)


@contextmanager
def _blaming(blob: BlobChunks, descriptor: Descriptor) -> Iterator[None]:
    """Turn what the package's parts raise into errors that name the layer.

    What was damaged on its way is not the layer's fault, so the blob's own size and digest are heard first.
    """
    layer = str(descriptor.digest)
    try:
        yield
    except Refusal as refusal:
        blob.drain()
        raise InvalidLayer(layer=layer, entry=shown(refusal.entry or b""), reason=refusal.reason) from refusal
    except Excess as excess:
        raise LayerLimitExceeded(layer=layer, limit=excess.limit, maximum=excess.maximum) from excess
