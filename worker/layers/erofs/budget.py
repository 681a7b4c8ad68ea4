# SPDX-License-Identifier: Apache-2.0
"""`IndexBudget`: how much memory the tree of a layer, or of all layers of an image, may take.

What nodes cost is an estimate, about 500 bytes for an entry of an image. Measured, building and merging take 0.4 to 0.8
times of it with what images have, and up to 1.2 times with what is most to their disadvantage.
"""

from worker.layers.erofs.tree import Directory, Node
from worker.layers.refusal import Excess

_LIMIT = "bytes of metadata"


class IndexBudget:
    """Counts what is remembered.

    Args:
        max_bytes: How much it may be.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0

    def take(self, count: int) -> None:
        """Count so many bytes more.

        Raises:
            Excess: They are too many.
        """
        self._bytes += count
        if self._bytes > self._max_bytes:
            raise Excess(_LIMIT, self._max_bytes)

    def take_node(self, name: bytes, node: Node) -> None:
        """Count a node without what is below it.

        Raises:
            Excess: It is too much.
        """
        self.take(_bytes_of(name, node))

    def give_back(self, name: bytes, node: Node) -> None:
        """Count a node no more, nor what is below it. Cost: as for taking it all."""
        gone = [(name, node)]
        while gone:
            name, node = gone.pop()
            self._bytes -= _bytes_of(name, node)
            if isinstance(node, Directory):
                gone += node.children.items()


_NAME_BYTES = 300
"""About what a name and what it leads to cost, beside their bytes, in the largest of directories."""
_DIRECTORY_BYTES = 600
_LINKED_BYTES = 100


def linked_bytes(inode: bytes) -> int:
    """Return what a file of several names costs beside them; it is never given back."""
    return _LINKED_BYTES + 2 * len(inode)


def _bytes_of(name: bytes, node: Node) -> int:
    """Return what a node costs.

    For a time its inode is there twice, in the tree and in the index or the image; so is its name, which may take up a
    whole block of the image.
    """
    cost = _NAME_BYTES + 3 * len(name)
    if isinstance(node, bytes):
        return cost + 2 * len(node)
    return cost + _DIRECTORY_BYTES + 2 * len(node.inode) if isinstance(node, Directory) else cost
