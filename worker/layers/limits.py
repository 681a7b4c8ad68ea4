# SPDX-License-Identifier: Apache-2.0
"""`LayerLimits`: how far a layer may go before it is refused."""

from dataclasses import dataclass, replace
from typing import Self

from worker.settings import MIB, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLimits:
    """Bounds on what a layer may make a worker read, write and remember.

    Attributes:
        max_layer_bytes: Of the uncompressed tar, and again of all files with their holes filled.
        max_entries: Members of the tar.
        max_header_bytes: One extended header, or one sparse map.
        max_index_bytes: What the EROFS format remembers of a layer until it is finished, and of all layers of an image
            while they are merged, about 500 an entry.
        max_implied_bytes: Names of the directories that a layer implies without listing them: they are remembered until
            the layer is finished, and one entry can imply two thousand.
        max_window_bytes: What a zstd frame may ask to remember; `zstd -20` asks for 32 MiB, `--ultra -22` for 128.
    """

    max_layer_bytes: int
    max_entries: int
    max_header_bytes: int
    max_index_bytes: int = 1024 * MIB
    max_implied_bytes: int = 16 * MIB
    max_window_bytes: int = 32 * MIB

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Take the limits the settings name; the others are fixed."""
        return cls(
            max_layer_bytes=settings.max_layer_bytes,
            max_entries=settings.max_layer_entries,
            max_header_bytes=settings.max_header_bytes,
            max_index_bytes=settings.max_index_bytes,
        )

    def shared_by(self, layers: int) -> Self:
        """Return the limits of each of so many layers that are made at the same time, in the memory of one."""
        return replace(self, max_index_bytes=self.max_index_bytes // layers)
