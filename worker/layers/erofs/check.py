# SPDX-License-Identifier: Apache-2.0
"""Check a committed EROFS layer against its DiffID, in one pass over its tar.

The tar is the DiffID's preimage, and index and sparse files are pure functions of the tar: all three are recomputed and
compared, so that no flipped bit escapes.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from worker.errors import DigestMismatch
from worker.image import LayerRecord
from worker.layers.erofs.blob import Blob
from worker.layers.erofs.build import BLOB, INDEX, TAR, read_layer
from worker.layers.erofs.index import IndexDamaged, dump_index, index_device_count
from worker.layers.erofs.inode import BLOB_DEVICE, TAR_DEVICE
from worker.layers.erofs.layer_tree import LayerTree
from worker.layers.limits import LayerLimits
from worker.layers.refusal import Excess, Refusal, refusal_of
from worker.layers.verified import TarChunks
from worker.problem import ProblemKind
from worker.settings import MIB

Fault = tuple[ProblemKind, str]
"""What is wrong, and a sentence about it."""

_CHUNK_BYTES = MIB


def check_erofs(
    layer_dir: Path, record: LayerRecord, *, scratch_dir: Path, limits: LayerLimits, on_progress: Callable[[int], None]
) -> Iterator[Fault]:
    """Yield everything that is wrong with a layer; nothing if it is as it was committed.

    Cost: reads and hashes the tar, parses its headers; memory as for building it.

    Args:
        layer_dir: The committed layer.
        record: Its record.
        scratch_dir: An empty directory for sparse files written out again.
        limits: As for building.
        on_progress: Called with the count of further bytes checked. What it raises goes through.

    Raises:
        OSError: Something cannot be read, or is not there.
    """
    size = (layer_dir / TAR).stat().st_size
    if size != record.tar_bytes:
        yield ProblemKind.LAYER_SIZE_WRONG, f"{TAR} has {size} bytes instead of {record.tar_bytes}"
    tar = TarChunks(_chunks(layer_dir / TAR, on_progress), record.diff_id, max_bytes=max(size, limits.max_layer_bytes))
    layer: LayerTree | None = None
    refusal = ""
    try:
        with Blob(scratch_dir / BLOB) as blob:
            try:
                layer = read_layer(tar, blob=blob, limits=limits)
            except (Refusal, Excess) as error:
                refusal = str(error)
            except OSError as error:
                if (fault := refusal_of(error, entry=b"")) is None:
                    raise
                refusal = fault.reason
            tar.drain()
    except DigestMismatch as error:
        yield ProblemKind.LAYER_DIGEST_WRONG, str(error)
        yield from _check_alone(layer_dir)
        return
    if layer is None:
        yield ProblemKind.LAYER_INDEX_WRONG, f"{TAR} is whole, but this node would refuse it: {refusal}"
        return
    yield from _check_made(layer_dir, record, layer, scratch_dir)


def _check_made(layer_dir: Path, record: LayerRecord, layer: LayerTree, scratch_dir: Path) -> Iterator[Fault]:
    """Compare what is made of the tar with what lies beside it."""
    made, kept = scratch_dir / BLOB, layer_dir / BLOB
    devices = BLOB_DEVICE if made.exists() else TAR_DEVICE
    if not _equals(layer_dir / INDEX, dump_index(layer.root, device_count=devices)):
        yield ProblemKind.LAYER_INDEX_WRONG, f"{INDEX} is not what the tar gives"
    if made.exists() and not kept.exists():
        yield ProblemKind.LAYER_DATA_MISSING, f"{BLOB} is missing"
    elif kept.exists() and not (made.exists() and _equals(kept, _chunks(made, lambda _: None))):
        yield ProblemKind.LAYER_BLOB_WRONG, f"{BLOB} does not hold the tar's sparse files"
    elif record.sparse_bytes not in (None, size := kept.stat().st_size if kept.exists() else 0):
        yield ProblemKind.LAYER_SIZE_WRONG, f"{BLOB} has {size} bytes instead of {record.sparse_bytes}"


def _check_alone(layer_dir: Path) -> Iterator[Fault]:
    """Check the index as far as its own checksum says: there is no tar to make it of."""
    try:
        index_device_count((layer_dir / INDEX).read_bytes())
    except (IndexDamaged, FileNotFoundError) as error:
        yield ProblemKind.LAYER_INDEX_WRONG, f"{INDEX}: {error}"


def _equals(path: Path, pieces: Iterator[bytes]) -> bool:
    """Tell whether a file holds exactly these bytes; one that is not there does not."""
    try:
        with path.open("rb") as file:
            return all(file.read(len(piece)) == piece for piece in pieces) and not file.read(1)
    except FileNotFoundError:
        return False


def _chunks(path: Path, on_progress: Callable[[int], None]) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            on_progress(len(chunk))
            yield chunk
