# SPDX-License-Identifier: Apache-2.0
"""Build a layer as a directory tree.

The layer stands alone: it is applied to nothing, so hard links reach only its own files, and what it hides of the
layers below is written down for the backend to obey. Entries are applied in order and the last one of a name wins;
whiteouts have the same effect wherever they stand. Source: image-spec v1.1.1, layer.md, "Applying Changesets".

Squashed, devices are left out. Sockets cannot be in a tar; vendors' entry types, dump directories and parts of several
volumes are refused.
"""

from collections.abc import Iterator
from pathlib import Path

from worker.layers.builder import BuiltLayer
from worker.layers.content import ContentMaker
from worker.layers.implied import ImpliedDirs
from worker.layers.limits import LayerLimits
from worker.layers.names import Place, Role, place_of
from worker.layers.refusal import Refusal, refusal_of
from worker.layers.stream import ByteStream
from worker.layers.tar_entry import TarEntry
from worker.layers.tar_reader import TarReader
from worker.layers.tree import Tree
from worker.layers.whiteouts import WhiteoutForm

TREE = "tree"
"""The name of a layer's root, beside its record."""


def build_directory(
    chunks: Iterator[bytes], *, form: WhiteoutForm, staging_dir: Path, limits: LayerLimits, is_squashed: bool
) -> BuiltLayer:
    """Unpack a tar into `staging_dir/tree`.

    Takes all of `chunks`. Effect: not durable yet.

    Raises:
        Refusal: The archive is at fault; `entry` says where.
        Excess: It goes beyond a limit.
        OSError: The node is at fault.
    """
    reader = TarReader(ByteStream(chunks), limits)
    implied = ImpliedDirs(max_bytes=limits.max_implied_bytes)
    with Tree(staging_dir / TREE, form=form, implied=implied, is_squashed=is_squashed) as tree:
        maker = ContentMaker(reader, tree, form=form, implied=implied, is_squashed=is_squashed)
        builder = _Builder(maker, tree, form=form, implied=implied)
        for entry in reader:
            builder.apply(entry)
        return builder.finish()


class _Builder:
    """Applies entries by what their names say."""

    def __init__(self, maker: ContentMaker, tree: Tree, *, form: WhiteoutForm, implied: ImpliedDirs) -> None:
        self._maker = maker
        self._tree = tree
        self._form = form
        self._implied = implied
        self._entries = 0

    def apply(self, entry: TarEntry) -> None:
        """Make, replace or hide what the entry names; what the archive is to blame for names the entry."""
        try:
            self._apply(entry)
        except Refusal as known:
            known.entry = known.entry or entry.name
            raise
        except OSError as error:
            if (refusal := refusal_of(error, entry=entry.name)) is None:
                raise
            raise refusal from error

    def finish(self) -> BuiltLayer:
        """Clear away what only whiteouts had asked for and nothing needs; say what was made."""
        for path in self._implied.ghosts():
            if self._is_below_opaque(path):
                self._remove(path)
        return BuiltLayer(
            disk_bytes=max(0, self._maker.disk_bytes - self._tree.freed_bytes),
            entries=self._entries,
            has_whiteouts=self._form.is_used,
            is_opaque=self._form.is_opaque(self._tree.root.descriptor),
            implied_dirs=tuple(
                path.decode("utf-8", "surrogateescape") or "."
                for path in self._implied.paths()
                if self._tree.find(path) is not None
            ),
        )

    def _apply(self, entry: TarEntry) -> None:
        place = place_of(entry.name)
        if place.role is Role.IGNORED:
            return
        self._entries += 1
        if place.role is Role.WHITEOUT:
            self._hide(place)
        elif place.role is Role.OPAQUE:
            self._hide_all(place)
        elif place.name:
            self._maker.make(place.parent, place.name, entry)
        else:
            self._maker.set_root(entry)

    def _hide(self, place: Place) -> None:
        """Hide a name of the layers below, and nothing that this layer has by that name, earlier or later.

        Of a directory that this layer has, that leaves its own entries: it becomes opaque.
        """
        directory = self._tree.reach(place.parent)
        if directory is None or self._form.is_opaque(directory.descriptor):
            return
        own = self._tree.enter(directory, place.name)
        if own is not None and not self._implied.is_ghost(place.path):
            self._form.make_opaque(own.descriptor)
            return
        if own is not None:
            self._tree.remove(directory, place.name)
        if not self._tree.holds(directory, place.name):
            self._form.hide(directory.descriptor, place.name)

    def _hide_all(self, place: Place) -> None:
        directory = self._tree.reach(place.parent)
        if directory is not None:
            self._form.make_opaque(directory.descriptor)

    def _is_below_opaque(self, path: bytes) -> bool:
        while path:
            path = path.rpartition(b"/")[0]
            directory = self._tree.find(path)
            if directory is not None and self._form.is_opaque(directory.descriptor):
                return True
        return False

    def _remove(self, path: bytes) -> None:
        parent, _, name = path.rpartition(b"/")
        directory = self._tree.find(parent)
        if directory is not None and self._tree.enter(directory, name) is not None:
            self._tree.remove(directory, name)
