# SPDX-License-Identifier: Apache-2.0
"""All layers of an image as one tree: what overlayfs would show of them, computed once."""

from worker.layers.erofs.budget import IndexBudget
from worker.layers.erofs.index import apply_index, index_device_count
from worker.layers.erofs.tree import Directory


class LayerMerge:
    """Lays layer upon layer.

    Args:
        max_bytes: What the tree may take in memory.

    Attributes:
        root: The tree of the layers so far; its devices are those of the layers, one layer after the other.
        device_count: How many these are.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self.root = Directory()
        self.device_count = 0
        self._budget = IndexBudget(max_bytes)

    def add(self, index: bytes) -> int:
        """Lay the next layer upon those added before, and return how many devices are its own.

        Raises:
            IndexDamaged: The index is damaged; nothing was added.
            Excess: The layers so far are too large together.
        """
        count = index_device_count(index)
        apply_index(self.root, index, first_device=self.device_count, budget=self._budget)
        self.device_count += count
        return count
