# SPDX-License-Identifier: Apache-2.0
"""Delete directory trees whose content nobody vouches for."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from worker.errors import RemovalFailed
from worker.linux.openat2 import open_directory_on_mount

_BLOCK_BYTES = 512
_SHOWN_FAILURES = 10
_WALKS = 5


def remove_tree(path: Path) -> int:
    """Delete `path`, a directory or anything else, with all that is below it.

    Never follows a symbolic link below `path`, never enters a mount point, and needs neither stack nor descriptors in
    proportion to the depth. Directories without permissions are given them first.

    Effect: on return nothing is at `path`, not necessarily by this call: it may run twice, also beside itself.
    Cost: one or two system calls for each entry.

    Returns:
        The bytes freed on disk, as far as this call freed them; of a file with other hard links, none.

    Raises:
        RemovalFailed: After everything else is gone, listing what could not be deleted.
    """
    removal = _Removal(path)
    for _ in range(_WALKS):
        removal.failures.clear()
        if removal.run() and not removal.failures:
            return removal.freed_bytes
    failures = removal.failures[:_SHOWN_FAILURES] or ["it is being changed"]
    raise RemovalFailed(path=str(path), failures="; ".join(failures))


@dataclass(slots=True)
class _Level:
    """One directory between `path` and where the walk is: only the deepest one is open."""

    name: str
    identity: tuple[int, int]
    subdirectories: list[str]
    blocks: int


@dataclass(slots=True)
class _Removal:
    path: Path
    freed_bytes: int = 0
    failures: list[str] = field(default_factory=list)
    levels: list[_Level] = field(default_factory=list)

    def run(self) -> bool:
        """Walk once; false if the walk lost its way because somebody moved or removed a directory under it."""
        self.levels.clear()
        try:
            top = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            return self._remove_top(top)
        finally:
            os.close(top)

    def _remove_top(self, top: int) -> bool:
        descriptor = self._enter(self.path.name, parent=top)
        if descriptor is None:
            return True
        try:
            descriptor = self._empty(descriptor)
        except _LostError as lost:
            descriptor = lost.descriptor
            return False
        finally:
            os.close(descriptor)
        self._leave(self.levels.pop(), parent=top)
        return True

    def _empty(self, descriptor: int) -> int:
        """Delete all below the top directory, depth first; return the descriptor that is open at the end."""
        while True:
            level = self.levels[-1]
            if level.subdirectories:
                child = self._enter(level.subdirectories.pop(), parent=descriptor)
                if child is not None:
                    os.close(descriptor)
                    descriptor = child
            elif len(self.levels) == 1:
                return descriptor
            else:
                descriptor = self._ascend(descriptor)
                self._leave(self.levels.pop(), parent=descriptor)

    def _enter(self, name: str, *, parent: int) -> int | None:
        """Open the directory and delete what is not a directory in it; None if there is nothing to enter."""
        descriptor = None
        with self._collecting(name):
            try:
                descriptor = _open_permitted(name, parent=parent)
            except OSError as error:
                if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                    raise
                self._unlink(name, dir_fd=parent)
            else:
                self._push(name, descriptor)
        return descriptor

    def _push(self, name: str, descriptor: int) -> None:
        status = os.fstat(descriptor)
        level = _Level(name, (status.st_dev, status.st_ino), [], status.st_blocks)
        self.levels.append(level)
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    level.subdirectories.append(entry.name)
                else:
                    with self._collecting(entry.name):
                        self._unlink(entry.name, dir_fd=descriptor)

    def _unlink(self, name: str, *, dir_fd: int) -> None:
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        os.unlink(name, dir_fd=dir_fd)
        if status.st_nlink == 1:
            self.freed_bytes += status.st_blocks * _BLOCK_BYTES

    def _ascend(self, descriptor: int) -> int:
        """Trade the descriptor for its parent's: `..` cannot be a link, but the directory may have been moved."""
        expected = self.levels[-2].identity
        try:
            parent = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
        except OSError as error:
            raise _LostError(descriptor) from error
        status = os.fstat(parent)
        if (status.st_dev, status.st_ino) != expected:
            os.close(parent)
            raise _LostError(descriptor)
        os.close(descriptor)
        return parent

    def _leave(self, level: _Level, *, parent: int) -> None:
        with self._collecting(level.name):
            os.rmdir(level.name, dir_fd=parent)
            self.freed_bytes += level.blocks * _BLOCK_BYTES

    @contextmanager
    def _collecting(self, name: str) -> Iterator[None]:
        """Note a failure and go on; somebody else having deleted the entry is none."""
        try:
            yield
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno == errno.ENOTEMPTY and self.failures:
                return  # What is left below has been noted.
            reason = "is a mount point" if error.errno in {errno.EXDEV, errno.EBUSY} else error.strerror
            self.failures.append(f"{self._shown(name)} {reason}")

    def _shown(self, name: str) -> str:
        return str(self.path.parent.joinpath(*(level.name for level in self.levels), name))


class _LostError(Exception):
    """The way back up is gone; carries the descriptor that is still open."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor


def _open_permitted(name: str, *, parent: int) -> int:
    """Open a directory for listing and deleting in it, giving ourselves the permissions if they are missing."""
    try:
        descriptor = open_directory_on_mount(name, dir_fd=parent)
    except PermissionError:
        _permit(name, parent=parent)
        descriptor = open_directory_on_mount(name, dir_fd=parent)
    if stat.S_IMODE(os.fstat(descriptor).st_mode) & stat.S_IRWXU != stat.S_IRWXU and os.geteuid() != 0:
        os.fchmod(descriptor, stat.S_IRWXU)
    return descriptor


def _permit(name: str, *, parent: int) -> None:
    place = open_directory_on_mount(name, dir_fd=parent, path_only=True)
    try:
        # fchmod refuses O_PATH descriptors, and a path could have become a link meanwhile; this can be neither.
        os.chmod(f"/proc/self/fd/{place}", stat.S_IRWXU)  # noqa: PTH101 - a descriptor's magic link
    finally:
        os.close(place)
