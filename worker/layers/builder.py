# SPDX-License-Identifier: Apache-2.0
"""`LayerBuilder`: what makes one layer format, and what it says of what it made."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from worker.layers.limits import LayerLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltLayer:
    """What a builder made; see `LayerRecord`."""

    disk_bytes: int
    entries: int
    has_whiteouts: bool
    is_opaque: bool
    implied_dirs: tuple[str, ...]
    sparse_bytes: int = 0


class LayerBuilder(Protocol):
    """Makes one layer format of an uncompressed tar in `staging_dir`; takes all of `chunks`.

    Raises:
        Refusal: The archive is at fault.
        Excess: It goes beyond a limit.
        OSError: The node is at fault.
    """

    def __call__(
        self, chunks: Iterator[bytes], *, staging_dir: Path, limits: LayerLimits, is_squashed: bool
    ) -> BuiltLayer:
        """Make it."""
