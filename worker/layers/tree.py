# SPDX-License-Identifier: Apache-2.0
"""`Tree`: the directories of a layer under construction, reached one component at a time and never through a link.

Nobody else writes to the tree, but what is in it came from an archive: a component that was a directory a moment ago
may be a symbolic link to the host's /etc now. So every directory is opened relative to its parent's descriptor with
O_NOFOLLOW, and every name is used relative to such a descriptor.
"""

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.layers.attributes import (
    ACCESS_ACL,
    DEFAULT_ACL,
    IMPLIED_MTIME_NS,
    set_implied_attributes,
    take_xattr,
)
from worker.layers.implied import ImpliedDirs
from worker.layers.names import joined
from worker.layers.whiteouts import WhiteoutForm
from worker.linux.remove import remove_tree

_MAX_OPEN = 64
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_UNFINISHED_MODE = 0o700


@dataclass(slots=True, eq=False)
class Directory:
    """An open directory of the tree.

    What it is to have but would disturb the making of its children is kept here and set when it is closed: the time,
    which every child changes, and the default ACL, which every child would inherit.

    Attributes:
        path: Normalised; empty for the root.
        descriptor: Open for listing.
        mtime_ns: To be set.
        default_acl: To be set, if any.
    """

    path: bytes
    descriptor: int
    mtime_ns: int
    default_acl: bytes | None = None


class Tree:
    """Opens and makes directories; keeps the last few open, since entries come by the directory.

    A `Directory` that was returned stays open until two more have been asked for.

    Args:
        root_dir: Made here, an empty directory.
        form: How to write that a directory hides what is below.
        implied: Told of directories that are made without being listed.
        is_squashed: Owners are left as they are.
    """

    def __init__(self, root_dir: Path, *, form: WhiteoutForm, implied: ImpliedDirs, is_squashed: bool) -> None:
        self._form = form
        self._implied = implied
        self._is_squashed = is_squashed
        self._open: dict[bytes, Directory] = {}
        self._has_default_acls = False
        self.freed_bytes = 0
        root_dir.mkdir(mode=_UNFINISHED_MODE)
        self.root = Directory(b"", os.open(root_dir, _DIRECTORY), IMPLIED_MTIME_NS)
        # What the store's own directory may make its children inherit does not belong to the layer.
        take_xattr(self.root.descriptor, DEFAULT_ACL)
        take_xattr(self.root.descriptor, ACCESS_ACL)
        set_implied_attributes(self.root.descriptor, is_squashed=is_squashed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close everything; without an error also finish the directories that are still open."""
        close = self._close if kind is None else _abandon
        with ExitStack() as every:
            for directory in (*self._open.values(), self.root):
                every.callback(close, directory)

    def make_parents(self, path: bytes) -> Directory:
        """Return the directory, making it and those above it where the layer has none; what is in the way goes."""
        directory, names = self._nearest(path)
        for name in names:
            directory = self.enter(directory, name) or self._make_implied(directory, name, is_ghost=False)
        return directory

    def reach(self, path: bytes) -> Directory | None:
        """Return the directory of a whiteout; None if the layer itself has something else there, or hides it.

        Those that are missing are made as ghosts.
        """
        return self._walk(path, self._step_as_ghost)

    def find(self, path: bytes) -> Directory | None:
        """Return the directory, or None if there is none."""
        return self._walk(path, self.enter)

    def enter(self, parent: Directory, name: bytes) -> Directory | None:
        """Return a directory's subdirectory, or None if there is nothing of the name, or no directory."""
        path = joined(parent.path, name)
        known = self._open.pop(path, None)
        if known is not None:
            self._open[path] = known
            return known
        try:
            descriptor = os.open(name, _DIRECTORY, dir_fd=parent.descriptor)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                raise
            return None
        return self._remember(Directory(path, descriptor, os.fstat(descriptor).st_mtime_ns))

    def make(self, parent: Directory, name: bytes) -> Directory:
        """Make a subdirectory where there is none.

        If it takes the place of something else, a whiteout included, that had hidden what the layers below have of the
        name; so must the directory.
        """
        hides = self._form.lift(parent.descriptor, name)
        try:
            os.mkdir(name, _UNFINISHED_MODE, dir_fd=parent.descriptor)
        except FileExistsError:
            hides = True
            self.remove(parent, name)
            os.mkdir(name, _UNFINISHED_MODE, dir_fd=parent.descriptor)
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent.descriptor)
        directory = self._remember(Directory(joined(parent.path, name), descriptor, IMPLIED_MTIME_NS))
        if hides:
            self._form.make_opaque(descriptor)
        return directory

    def hold_default_acl(self, directory: Directory, acl: bytes | None) -> None:
        """Set the directory's default ACL once it is finished."""
        directory.default_acl = acl
        self._has_default_acls = self._has_default_acls or acl is not None

    def holds(self, directory: Directory, name: bytes) -> bool:
        """Tell whether anything of this name is there, or a whiteout of it."""
        if self._form.is_hidden(directory.descriptor, name):
            return True
        try:
            os.stat(name, dir_fd=directory.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def remove(self, parent: Directory, name: bytes) -> None:
        """Remove what has this name, with all that is below it."""
        try:
            os.unlink(name, dir_fd=parent.descriptor)
        except OSError as error:
            if error.errno not in {errno.EISDIR, errno.EPERM}:
                raise
            self._forget(joined(parent.path, name))
            self.freed_bytes += remove_tree(Path(f"/proc/self/fd/{parent.descriptor}", os.fsdecode(name)))

    def _step_as_ghost(self, parent: Directory, name: bytes) -> Directory | None:
        directory = self.enter(parent, name)
        if directory is not None:
            return directory
        if self.holds(parent, name):
            return None
        return self._make_implied(parent, name, is_ghost=True)

    def _make_implied(self, parent: Directory, name: bytes, *, is_ghost: bool) -> Directory:
        self._implied.add(joined(parent.path, name), is_ghost=is_ghost)
        directory = self.make(parent, name)
        set_implied_attributes(directory.descriptor, is_squashed=self._is_squashed)
        return directory

    def _walk(self, path: bytes, step: Callable[[Directory, bytes], Directory | None]) -> Directory | None:
        """Go to `path` by `step`; None as soon as one leads nowhere."""
        nearest, names = self._nearest(path)
        directory: Directory | None = nearest
        for name in names:
            if directory is None:
                break
            directory = step(directory, name)
        return directory

    def _nearest(self, path: bytes) -> tuple[Directory, Iterable[bytes]]:
        """Return the deepest directory on the way to `path` that is open, and the names that lead on from there."""
        names: list[bytes] = []
        while path and path not in self._open:
            path, _, name = path.rpartition(b"/")
            names.append(name)
        if not path:
            return self.root, reversed(names)
        directory = self._open[path] = self._open.pop(path)
        return directory, reversed(names)

    def _remember(self, directory: Directory) -> Directory:
        if self._has_default_acls:
            directory.default_acl = take_xattr(directory.descriptor, DEFAULT_ACL)
        if len(self._open) >= _MAX_OPEN:
            self._close(self._open.pop(next(iter(self._open))))
        self._open[directory.path] = directory
        return directory

    def _forget(self, path: bytes) -> None:
        """Close a directory that is about to be removed, and those below it."""
        below = path + b"/"
        for known in [known for known in self._open if known == path or known.startswith(below)]:
            _abandon(self._open.pop(known))

    def _close(self, directory: Directory) -> None:
        try:
            if directory.default_acl is not None:
                os.setxattr(directory.descriptor, DEFAULT_ACL, directory.default_acl)
            os.utime(directory.descriptor, ns=(directory.mtime_ns, directory.mtime_ns))
        finally:
            os.close(directory.descriptor)


def _abandon(directory: Directory) -> None:
    os.close(directory.descriptor)
