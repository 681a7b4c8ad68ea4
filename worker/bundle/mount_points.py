# SPDX-License-Identifier: Apache-2.0
"""The directories that a runtime needs to find in a rootfs that refuses writes; in any other it makes them itself."""

import errno
import os
import posixpath
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from worker.bundle.defaults import MOUNT_POINTS
from worker.bundle.execution import Execution
from worker.errors import DirectoryMissing
from worker.linux.durable import reporting_full_disk
from worker.linux.inside import opened_inside

_UNNAMEABLE = frozenset({errno.ELOOP, errno.ENAMETOOLONG})


def mount_points(execution: Execution) -> tuple[str, ...]:
    """Return where a runtime mounts and where the program starts, but nothing below another of them; pure.

    What is below a mount is not in the rootfs: a runtime makes it there.
    """
    cwd = posixpath.normpath(execution.cwd)
    outermost: list[PurePosixPath] = []
    for path in sorted(map(PurePosixPath, {*MOUNT_POINTS, *execution.volumes, f"/{cwd.lstrip('/')}"} - {"/"})):
        if not any(path.is_relative_to(other) for other in outermost):
            outermost.append(path)
    return tuple(map(str, outermost))


def make_mount_points(top_dir: Path, paths: Iterable[str]) -> None:
    """Make the directories in `top_dir`, as an image would have them, whatever the umask; what is there stays.

    One with a name that no filesystem takes is left out: no image has it either.

    Raises:
        StorageExhausted: No room.
    """
    with reporting_full_disk(top_dir):
        for path in paths:
            try:
                _make(top_dir, PurePosixPath(path).parts[1:])
            except OSError as error:
                if error.errno not in _UNNAMEABLE:
                    raise


def check_mount_points(rootfs_dir: Path, paths: Iterable[str], *, image: str) -> None:
    """Make sure that the rootfs, which refuses writes, has the directories.

    Raises:
        DirectoryMissing: Names the first that it has not.
    """
    for path in paths:
        if not _is_directory_inside(rootfs_dir, path):
            raise DirectoryMissing(image=image, path=path)


def _make(top_dir: Path, names: Iterable[str]) -> None:
    directory = top_dir
    for name in ("", *names):
        directory /= name
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)


def _is_directory_inside(rootfs_dir: Path, path: str) -> bool:
    try:
        with opened_inside(rootfs_dir, path) as place:
            return place is not None and stat.S_ISDIR(os.fstat(place).st_mode)
    except OSError as error:
        if error.errno not in _UNNAMEABLE:
            raise
        return False
