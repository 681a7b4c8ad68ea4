# SPDX-License-Identifier: Apache-2.0
"""`StoreUsage`: how much a store holds, cheap enough to be asked every few seconds."""

import threading
from dataclasses import dataclass

from worker.errors import LayerVanished, RecordCorrupt
from worker.image import LayerFormat
from worker.oci.digest import Digest
from worker.paths import StorePaths
from worker.store.images import Images
from worker.store.layers import Layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Layers of one format.

    Attributes:
        layers: How many are committed.
        disk_bytes: What they take, as their records say.
    """

    layers: int
    disk_bytes: int


class StoreUsage:
    """Remembers what each layer takes, since a layer never changes under its DiffID. May be used by threads."""

    def __init__(self, paths: StorePaths) -> None:
        self._images = Images(paths)
        self._layers = Layers(paths)
        self._lock = threading.Lock()
        self._sizes: dict[tuple[LayerFormat, Digest], int] = {}

    def images(self) -> int:
        """Count the images. Raises FileNotFoundError if there is no store. Cost: one directory listing."""
        return sum(1 for _ in self._images.digests())

    def held(self) -> dict[LayerFormat, Held]:
        """Return what each format takes. Cost: a directory listing, and one small file for each layer that is new."""
        with self._lock:
            committed = set(self._layers.committed())
            self._sizes = {layer: size for layer, size in self._sizes.items() if layer in committed}
            for layer in committed - self._sizes.keys():
                self._read(*layer)
            return {layer_format: self._held(layer_format) for layer_format in LayerFormat}

    def _read(self, layer_format: LayerFormat, diff_id: Digest) -> None:
        """Look up a layer; one that has just gone, or cannot be read, is looked up again next time."""
        try:
            record = self._layers.record(diff_id, layer_format=layer_format)
        except (LayerVanished, RecordCorrupt):
            return
        self._sizes[layer_format, diff_id] = record.disk_bytes

    def _held(self, layer_format: LayerFormat) -> Held:
        sizes = [size for (each, _), size in self._sizes.items() if each is layer_format]
        return Held(layers=len(sizes), disk_bytes=sum(sizes))
