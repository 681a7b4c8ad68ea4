# SPDX-License-Identifier: Apache-2.0
"""Files and directories that survive power loss.

The recipe is always the same: write aside, fsync, rename into place, fsync the directory. Without the last step ext4
and XFS may come back with the old name or none; without the first fsync, with the new name and an empty file.
Source: LWN "Ensuring data reaches disk", https://lwn.net/Articles/457667/; rename(2), fsync(2).
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from worker.errors import StorageExhausted
from worker.linux import libc
from worker.linux.writeback import start_writeback

_TEMPORARY_PREFIX = ".tmp-"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_temporary(name: str) -> bool:
    """Tell whether a directory entry is a file that `write_file` had not finished, perhaps for ever.

    Whoever lists a directory in which files are written skips these, and may delete those of dead writers.
    """
    return name.startswith(_TEMPORARY_PREFIX)


@contextmanager
def reporting_full_disk(path: Path) -> Iterator[None]:
    """Turn "no space", "no inodes" and "quota exceeded" into `StorageExhausted` naming `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageExhausted(path=str(path), reason=os.strerror(error.errno or 0)) from error


def write_file(path: Path, content: bytes | bytearray, *, mode: int = 0o600) -> None:
    """Put `content` at `path`, whole or not at all.

    Effect: replaces what was there; readers see the old or the new content; survives power loss on return.

    Raises:
        StorageExhausted: The filesystem is full; nothing changed.
    """
    temporary = path.with_name(_TEMPORARY_PREFIX + secrets.token_hex(8))
    with reporting_full_disk(path):
        try:
            _write_synced(temporary, content, mode=mode)
            temporary.rename(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_directory(path.parent)


def write_new(path: Path, content: bytes | bytearray, *, mode: int = 0o600) -> None:
    """Write a file that is not there yet, in a directory that `sync_files` makes durable before anybody looks at it.

    Raises:
        StorageExhausted: The filesystem is full; some of the file may be there.
        FileExistsError: There is such a file.
    """
    with reporting_full_disk(path), _created(path) as descriptor:
        _write_all(descriptor, content)
        os.fchmod(descriptor, mode)


def rename(source: Path, target: Path) -> None:
    """Rename within one filesystem.

    Effect: atomic; survives power loss on return, since a filesystem that renames in one step keeps both halves of it
        or none. What `source` holds must have been made durable before.

    Raises:
        OSError: As rename(2): ENOTEMPTY or EEXIST when `target` is a directory with entries, ENOENT without `source`.
    """
    with reporting_full_disk(target):
        source.rename(target)
        sync_directory(target.parent)


def exchange(first: Path, second: Path) -> None:
    """Let two paths of one filesystem change places.

    Effect: atomic where the filesystem can (not on NFS: there `second` is absent for a moment); survives power loss on
        return. What both hold must have been made durable before.
    """
    try:
        names = os.fsencode(first), os.fsencode(second)
        libc.call("renameat2", _AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOSYS}:
            raise
        aside = first.with_name(_TEMPORARY_PREFIX + secrets.token_hex(8))
        second.rename(aside)
        first.rename(second)
        aside.rename(first)
    for directory in {first.parent, second.parent}:
        sync_directory(directory)


def make_dirs(path: Path, mode: int = 0o700) -> None:
    """Create the directory and the parents it lacks, all with `mode`.

    Effect: on return the directory is there, not necessarily by this call; those made here survive power loss.
    """
    for directory in make_dirs_unsynced(path, mode):
        sync_directory(directory.parent)


def make_dirs_unsynced(path: Path, mode: int = 0o700) -> list[Path]:
    """Create the directory and the parents it lacks, all with `mode`, for somebody who syncs later or never.

    Returns:
        Those that were missing, parents first; somebody else may be making the same ones right now.
    """
    missing: list[Path] = []
    while not path.is_dir():
        missing.insert(0, path)
        path = path.parent
    with reporting_full_disk(path):
        for directory in missing:
            with suppress(FileExistsError):
                directory.mkdir(mode)
    return missing


def sync_directory(path: Path) -> None:
    """Make the directory's entries, not what they lead to, survive power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(directory: Path) -> None:
    """Make a directory of a few files or empty directories, and what is in them, survive power loss.

    All are on their way to the disk before the first is waited for, so that one journal commit does for them all.

    Cost: what is still dirty of them, and of nobody else's.

    Raises:
        StorageExhausted: Delayed allocation found no room.
        OSError: A write failed; what was written cannot be trusted.
    """
    with reporting_full_disk(directory):
        with ExitStack() as opened:
            descriptors = [_opened(path, opened) for path in directory.iterdir()]
            for descriptor in descriptors:
                start_writeback(descriptor, 0, 0)
            for descriptor in descriptors:
                os.fsync(descriptor)
        sync_directory(directory)


def sync_filesystem(path: Path) -> None:
    """Make all of the filesystem that holds `path` survive power loss.

    Cost: one pass over everything dirty there, other writers' data too; for a tree of many files far cheaper than an
    fsync for each.

    Raises:
        StorageExhausted: Delayed allocation found no room.
        OSError: A write failed since the last call (kernel >= 5.8); what was written cannot be trusted.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with reporting_full_disk(path):
            libc.call("syncfs", descriptor)
    finally:
        os.close(descriptor)


def _write_synced(path: Path, content: bytes | bytearray, *, mode: int) -> None:
    with _created(path) as descriptor:
        _write_all(descriptor, content)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)


@contextmanager
def _created(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes | bytearray) -> None:
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]


def _opened(path: Path, stack: ExitStack) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor
