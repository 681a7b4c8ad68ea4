# SPDX-License-Identifier: Apache-2.0
"""An image's layers in EROFS format as one filesystem: metadata in one small file, data in the layers' own.

The file ends with a CRC-32 of all before it, beyond what the kernel reads: the kernel is to parse nothing but what was
written here, so the file is checked before each mount.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.errors import LayerDamaged, LayerLimitExceeded, LayerVanished, RecordCorrupt
from worker.layers.erofs.build import BLOB, INDEX, TAR
from worker.layers.erofs.format import Device, image_device_count
from worker.layers.erofs.image import encode_image
from worker.layers.erofs.index import IndexDamaged
from worker.layers.erofs.merge import LayerMerge
from worker.layers.limits import LayerLimits
from worker.layers.refusal import Excess
from worker.linux import durable

_CHECKSUM_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedImage:
    """What is to be mounted.

    Attributes:
        image_path: The metadata.
        device_paths: The files that hold the data, in the order of the image's devices.
    """

    image_path: Path
    device_paths: tuple[Path, ...]

    def check(self) -> None:
        """Make sure that the metadata are as they were written. Cost: reads them, a few megabytes.

        Raises:
            RecordCorrupt: They are not, or are gone, or number other devices than these.
        """
        try:
            content = self.image_path.read_bytes()
        except OSError as error:
            raise RecordCorrupt(path=str(self.image_path), reason=error.strerror or str(error)) from error
        if content[-_CHECKSUM_BYTES:] != _checksum(memoryview(content)[:-_CHECKSUM_BYTES]):
            raise RecordCorrupt(path=str(self.image_path), reason="its checksum is wrong")
        if (count := image_device_count(content)) != len(self.device_paths):
            reason = f"it is of {count} files, and {len(self.device_paths)} are there"
            raise RecordCorrupt(path=str(self.image_path), reason=reason)


def merge_image(
    merged_path: Path, layer_dirs: Sequence[Path], *, limits: LayerLimits, anew: bool = False
) -> MergedImage:
    """Return an image's layers merged, which is computed once per image and store.

    Effect: on return the file is there and survives power loss, not necessarily by this call; two callers at once write
        the same bytes.
    Cost: the first time about 5 µs for each entry of all layers, and memory that is limited; later a system call for
        each layer.
    Locking: the caller keeps the image and its layers.

    Args:
        merged_path: Where the image's file is or is to be; it belongs to exactly these layers.
        layer_dirs: Of committed layers in EROFS format, base first, no duplicates.
        limits: How much memory the entries of all layers may take together.
        anew: Compute it also if it is there, and replace it.

    Raises:
        LayerVanished: A layer is not there (any more).
        LayerDamaged: The index of a layer is damaged, or counts other files than are there.
        LayerLimitExceeded: The layers up to one are too large together.
        BackendUnsupported: The image has more layers than the format can number.
        StorageExhausted: The store is full; a retry can help.
    """
    device_paths = tuple(path for layer_dir in layer_dirs for path in _devices(layer_dir))
    if anew or not merged_path.exists():
        durable.write_file(merged_path, merged_content(layer_dirs, limits=limits))
    return MergedImage(image_path=merged_path, device_paths=device_paths)


def merged_content(layer_dirs: Sequence[Path], *, limits: LayerLimits) -> bytearray:
    """Compute what the file of these layers holds; raises and costs as `merge_image`."""
    merge, devices = LayerMerge(max_bytes=limits.max_index_bytes), list[Device]()
    for layer_dir in layer_dirs:
        paths = tuple(_devices(layer_dir))
        _add(merge, layer_dir, device_count=len(paths))
        devices += (Device(tag=_tag(path), size_bytes=path.stat().st_size) for path in paths)
    content = encode_image(merge.root, devices)
    content += _checksum(content)
    return content


def _checksum(content: bytearray | memoryview) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "little")


def _devices(layer_dir: Path) -> Iterator[Path]:
    """Yield the files that hold a layer's data.

    Raises:
        LayerVanished: They are not there.
    """
    tar, blob = layer_dir / TAR, layer_dir / BLOB
    if not tar.exists():
        raise LayerVanished(layer=layer_dir.name)
    yield tar
    if blob.exists():
        yield blob


def _add(merge: LayerMerge, layer_dir: Path, *, device_count: int) -> None:
    path = layer_dir / INDEX
    try:
        expected = merge.add(path.read_bytes())
    except FileNotFoundError as error:
        raise LayerVanished(layer=layer_dir.name) from error
    except IndexDamaged as error:
        raise LayerDamaged(layer=layer_dir.name, reason=f"{path}: {error}") from error
    except Excess as excess:
        limit = f"{excess.limit}, its own and those of the layers below it,"
        raise LayerLimitExceeded(layer=layer_dir.name, limit=limit, maximum=excess.maximum) from excess
    if device_count != expected:
        reason = f"{expected} files are to hold its data, and {device_count} are there"
        raise LayerDamaged(layer=layer_dir.name, reason=reason)


def _tag(path: Path) -> bytes:
    """Return the digest's first 64 digits, for people who look at an image with dump.erofs."""
    return path.parent.name.rpartition(":")[2].encode()[:64]
