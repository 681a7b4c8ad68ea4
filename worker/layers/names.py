# SPDX-License-Identifier: Apache-2.0
"""What an entry's name says: where it goes and whether it is a whiteout. Pure.

Source: image-spec v1.1.1, layer.md, "Whiteouts"; for the names that are ignored, aufs's `.wh..wh.plnk` and the like.
"""

from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from worker.layers.refusal import Refusal

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4095
"""What the kernel takes, without its closing NUL."""

WHITEOUT_PREFIX = b".wh."
OPAQUE_MARK = b".wh..wh..opq"
_RESERVED_PREFIX = b".wh..wh."


class Role(Enum):
    """What an entry is there for."""

    CONTENT = "content"
    WHITEOUT = "hides one name of the layers below"
    OPAQUE = "hides everything the layers below have in a directory"
    IGNORED = "bookkeeping of a storage driver"


class Place(NamedTuple):
    """Where an entry goes, relative to the layer's root.

    Attributes:
        parent: Normalised path of the directory; empty for the root.
        name: In that directory; of what is hidden, for a whiteout; empty for the root itself and for an opaque mark.
        role: What the entry is there for.
    """

    parent: bytes
    name: bytes
    role: Role

    @property
    def path(self) -> bytes:
        """The normalised path."""
        return joined(self.parent, self.name)


def joined(parent: bytes, name: bytes) -> bytes:
    """Return the normalised path of `name` in `parent`."""
    return parent + b"/" + name if parent else name


def normalised(name: bytes) -> bytes:
    """Return the path without leading, trailing and repeated slashes and without `.`; empty for the root.

    Raises:
        Refusal: It is empty, climbs, or is longer than the kernel takes.
    """
    if not name:
        raise Refusal("an entry without a name")
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if b".." in parts:
        raise Refusal("the name climbs out of the layer")
    path = b"/".join(parts)
    if len(path) > MAX_PATH_BYTES or (len(path) > MAX_NAME_BYTES and max(map(len, parts)) > MAX_NAME_BYTES):
        raise Refusal("the name is too long")
    return path


def place_of(name: bytes) -> Place:
    """Return where the entry of this name goes.

    Raises:
        Refusal: As `normalised`, and for a whiteout of nothing, of `.` or `..`, and for names below a whiteout.
    """
    parent, _, base = name.rstrip(b"/").rpartition(b"/")
    if base and not base.startswith(b".") and len(name) <= MAX_NAME_BYTES:
        directory = _plain_directory(parent)
        if directory is not None:
            return Place(directory, base, Role.CONTENT)
    path = normalised(name)
    parent, _, base = path.rpartition(b"/")
    if WHITEOUT_PREFIX in path:
        return _reserved_place(parent, base)
    return Place(parent, base, Role.CONTENT)


@lru_cache(maxsize=256)
def _plain_directory(path: bytes) -> bytes | None:
    """Return the normalised path of a directory, or None if it may hold a whiteout's name.

    Cached, since entries come by the directory.
    """
    if WHITEOUT_PREFIX in path:
        return None
    return normalised(path) if path else path


def _reserved_place(parent: bytes, base: bytes) -> Place:
    """Judge a path that may hold a whiteout's name. The entry's type does not matter, as in containerd and umoci."""
    for part in parent.split(b"/"):
        if part.startswith(_RESERVED_PREFIX):
            return Place(parent, base, Role.IGNORED)
        if part.startswith(WHITEOUT_PREFIX):
            raise Refusal("the name leads through a whiteout")
    if base == OPAQUE_MARK:
        return Place(parent, b"", Role.OPAQUE)
    if base.startswith(_RESERVED_PREFIX):
        return Place(parent, base, Role.IGNORED)
    if not base.startswith(WHITEOUT_PREFIX):
        return Place(parent, base, Role.CONTENT)
    hidden = base.removeprefix(WHITEOUT_PREFIX)
    if hidden in (b"", b".", b".."):
        raise Refusal("a whiteout of no name")
    return Place(parent, hidden, Role.WHITEOUT)
