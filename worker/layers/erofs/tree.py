# SPDX-License-Identifier: Apache-2.0
"""A tree of encoded inodes in memory: of one layer, or of all layers of an image merged.

Most nodes are nothing but the bytes of their inode; an object for each would cost more than all the rest.
"""

from enum import Enum

from worker.layers.erofs.inode import implied_directory

_IMPLIED = implied_directory()


class Directory:
    """A directory.

    Attributes:
        inode: Encoded, without content.
        children: By name.
        is_opaque: Whether it hides everything the layers below have in it.
        is_implied: Whether the layer does not list it, so that its attributes belong to the layers below.
    """

    __slots__ = ("children", "inode", "is_implied", "is_opaque")

    def __init__(self, inode: bytes = _IMPLIED, *, is_opaque: bool = False, is_implied: bool = False) -> None:
        self.inode = inode
        self.children: dict[bytes, Node] = {}
        self.is_opaque = is_opaque
        self.is_implied = is_implied

    def make_opaque(self) -> None:
        """Hide everything the layers below have in it; whiteouts in it, now superfluous, go."""
        self.is_opaque = True
        for name in [name for name, node in self.children.items() if node is Whiteout.OF_NAME]:
            del self.children[name]


class Linked:
    """A file with several names, which all lead to this one object.

    Attributes:
        inode: Encoded.
    """

    __slots__ = ("inode",)

    def __init__(self, inode: bytes) -> None:
        self.inode = inode


class Whiteout(Enum):
    """A node of one layer that hides what the layers below have of its name."""

    OF_NAME = "whiteout"


Node = Directory | Linked | Whiteout | bytes
"""What a name leads to; bytes are the encoded inode of a file with one name."""
