# SPDX-License-Identifier: Apache-2.0
"""Directories that a layer needs but does not list keep the attributes they have in the layers below.

A layer with `tmp/file` and no entry for `tmp` does not mean to change /tmp; but its tree must have a `tmp`, which hides
the attributes of the one below (containerd#3017: /tmp without its sticky bit). Layers are shared by images
and cannot know what lies below them, so what the image means is put into one more lower directory on top: nothing but
such directories, with the attributes of the topmost layer that lists them.
"""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from worker.image import LayerRecord
from worker.linux.attributes import copy_attributes

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


class Look(Enum):
    """What a layer's tree has at a path: nothing, a directory, one that hides all below it, or something in its way."""

    ABSENT = "absent"
    DIRECTORY = "directory"
    OPAQUE = "opaque"
    BARRIER = "barrier"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTree:
    """A committed layer in directory format.

    Attributes:
        tree_dir: Its tree.
        implied_dirs: The directories in it that it does not list.
    """

    tree_dir: Path
    implied_dirs: frozenset[str]

    @classmethod
    def of(cls, tree_dir: Path, record: LayerRecord) -> "LayerTree":
        """Take what is needed of the record."""
        return cls(tree_dir=tree_dir, implied_dirs=frozenset(record.implied_dirs))


def plan_overrides(
    layers: Sequence[LayerTree], *, look: Callable[[LayerTree, str], Look] | None = None
) -> dict[str, LayerTree]:
    """Decide which directories need their attributes put right, and from which layer: parents first.

    Args:
        layers: Base first, without those below an opaque layer.
        look: Asks a layer for a path; the disk by default.

    Returns:
        Relative path to layer; with all parents of each path; empty when nothing needs to be put right.
    """
    look = look or look_on_disk
    top_first = tuple(reversed(layers))
    implied = {path for layer in layers[1:] for path in layer.implied_dirs}
    wrong = {path for path in implied if _source(path, top_first, look, is_override=True) is not None}
    paths = sorted({ancestor for path in wrong for ancestor in _with_ancestors(path)})
    sources = ((path, _source(path, top_first, look, is_override=False)) for path in paths)
    return {path: source for path, source in sources if source is not None}


def make_overrides(overrides: dict[str, LayerTree], target_dir: Path) -> None:
    """Make the directories in `target_dir`, which is empty, with their attributes."""
    for path in overrides:
        (target_dir / path).mkdir(mode=0o700, exist_ok=True)
    for path, layer in reversed(overrides.items()):
        descriptor = _open(layer.tree_dir, path)
        try:
            copy_attributes(descriptor, str(target_dir / path), os.fstat(descriptor))
        finally:
            os.close(descriptor)


def look_on_disk(layer: LayerTree, path: str) -> Look:
    """Look at a layer's tree without following a link."""
    is_opaque = False
    with ExitStack() as stack:
        descriptor: int | None = None
        for name in _components(layer.tree_dir, path):
            try:
                descriptor = os.open(name, _DIRECTORY_FLAGS, dir_fd=descriptor)
            except FileNotFoundError:
                return Look.BARRIER if is_opaque else Look.ABSENT
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                return Look.BARRIER
            stack.callback(os.close, descriptor)
            is_opaque = is_opaque or any(mark in _OPAQUE for mark in os.listxattr(descriptor))
    return Look.OPAQUE if is_opaque else Look.DIRECTORY


def _source(
    path: str, top_first: Sequence[LayerTree], look: Callable[[LayerTree, str], Look], *, is_override: bool
) -> LayerTree | None:
    """Find the layer whose attributes the directory has in the image.

    With `is_override` only if that is another layer than the one overlayfs would take them from.
    """
    first: LayerTree | None = None
    for layer in top_first:
        seen = look(layer, path)
        if seen is Look.BARRIER:
            break
        if seen is Look.ABSENT:
            continue
        if path not in layer.implied_dirs:
            return None if is_override and first is None else layer
        first = first or layer
        if seen is Look.OPAQUE:
            break
    return None if is_override else first


def _with_ancestors(path: str) -> Iterator[str]:
    """Yield the root, written `.`, and all directories down to the path."""
    yield "."
    parts = path.split("/") if path != "." else []
    for depth in range(1, len(parts) + 1):
        yield "/".join(parts[:depth])


def _components(tree_dir: Path, path: str) -> tuple[str, ...]:
    return (str(tree_dir), *(path.split("/") if path != "." else ()))


def _open(tree_dir: Path, path: str) -> int:
    """Open a directory that `look_on_disk` has seen."""
    descriptor = -1
    for name in _components(tree_dir, path):
        parent, descriptor = descriptor, os.open(name, _DIRECTORY_FLAGS, dir_fd=descriptor if descriptor >= 0 else None)
        if parent >= 0:
            os.close(parent)
    return descriptor
