# SPDX-License-Identifier: Apache-2.0
"""Decide, for one directory at a time, which layer's entry shows: overlayfs' lookup as a pure function."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What matters about an entry of a layer for deciding what shows."""

    DIRECTORY = "directory"
    WHITEOUT = "whiteout"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry of the merged directory.

    Attributes:
        is_directory: Whether it is one.
        layers: Where it comes from, topmost first: the only layer of anything else; all that contribute to a directory,
            of which the first gives the attributes.
    """

    is_directory: bool
    layers: tuple[int, ...]


def merge(listings: Sequence[tuple[int, Mapping[str, Kind]]]) -> dict[str, Shown]:
    """Merge one directory.

    An entry hides what is below it, except that directories directly upon each other are one. An opaque directory is
    the last of the listings.

    Args:
        listings: (layer, entries), topmost first.
    """
    stacks: dict[str, list[tuple[int, Kind]]] = {}
    for layer, entries in listings:
        for name, kind in entries.items():
            stacks.setdefault(name, []).append((layer, kind))
    return {name: shown for name, stack in stacks.items() if (shown := _topmost(stack)) is not None}


def _topmost(stack: Sequence[tuple[int, Kind]]) -> Shown | None:
    layer, kind = stack[0]
    if kind is Kind.WHITEOUT:
        return None
    if kind is Kind.OTHER:
        return Shown(is_directory=False, layers=(layer,))
    return Shown(is_directory=True, layers=tuple(_leading_directories(stack)))


def _leading_directories(stack: Iterable[tuple[int, Kind]]) -> Iterable[int]:
    for layer, kind in stack:
        if kind is not Kind.DIRECTORY:
            return
        yield layer
