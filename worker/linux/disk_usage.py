# SPDX-License-Identifier: Apache-2.0
"""How much of the disk trees take, whatever somebody put into them."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.linux.mountinfo import mounts_at_or_below
from worker.linux.openat2 import open_directory_below

_BLOCK_BYTES = 512
"""What `st_blocks` counts, whatever the filesystem's own blocks."""

Components = tuple[str, ...]


class DiskMeter:
    """Measures trees; a file with several names counts once in all that one meter measures.

    What counts are blocks (`st_blocks`): holes do not, and blocks that several files share by reflink do for each of
    them. Symbolic links are not followed, and what is mounted below a tree is not part of it. Neither depth nor length
    of a path is limited; memory goes with the directories yet to be visited and the files with several names.

    Attributes:
        unreadable: How many directories could not be entered; what is in them is missing from the sums.
    """

    def __init__(self) -> None:
        self.unreadable = 0
        self._seen: set[tuple[int, int]] = set()

    def measure(self, path: Path) -> int:
        """Return the bytes on disk of a directory, or anything else, with all below it; 0 if nothing is there.

        What comes, goes or moves meanwhile is counted or not.

        Args:
            path: Absolute, free of symbolic links but for its last component.
        """
        try:
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                return self._bytes_of(status)
            top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        except PermissionError:
            self.unreadable += 1
            return 0
        try:
            return self._measure_below(top, mounts=_mounts_below(path))
        finally:
            os.close(top)

    def _measure_below(self, top: int, *, mounts: frozenset[Components]) -> int:
        total, places = 0, [Components()]
        while places:
            place = places.pop()
            with self._opened(top, place) as descriptor:
                if descriptor is None:
                    continue
                total += self._bytes_of(os.fstat(descriptor))
                for entry, status in self._entries(descriptor):
                    if (*place, entry.name) in mounts:
                        continue
                    if stat.S_ISDIR(status.st_mode):
                        places.append((*place, entry.name))
                    else:
                        total += self._bytes_of(status)
        return total

    @contextmanager
    def _opened(self, top: int, place: Components) -> Iterator[int | None]:
        """Open a directory of the tree; None if it is none any more, is a mount point, or may not be entered."""
        try:
            descriptor = open_directory_below(top, place)
        except PermissionError:
            self.unreadable += 1
            yield None
            return
        except OSError:
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _entries(self, descriptor: int) -> Iterator[tuple["os.DirEntry[str]", os.stat_result]]:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except PermissionError:
                    # The directory may be listed and not searched, which goes for all that is in it.
                    self.unreadable += 1
                    return
                yield entry, status

    def _bytes_of(self, status: os.stat_result) -> int:
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            identity = status.st_dev, status.st_ino
            if identity in self._seen:
                return 0
            self._seen.add(identity)
        return status.st_blocks * _BLOCK_BYTES


def _mounts_below(path: Path) -> frozenset[Components]:
    """Return where something is mounted below a directory: a file may be a mount point too, of the same filesystem."""
    return frozenset(mount.path.relative_to(path).parts for mount in mounts_at_or_below(path) if mount.path != path)
