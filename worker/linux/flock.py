# SPDX-License-Identifier: Apache-2.0
"""Locks between processes that the kernel releases when their holder dies.

A lock belongs to one opening of a file, not to a process: two threads that lock the same path exclude each other, and
a forked child shares its parent's lock until both have closed it. Locks do not outlive a reboot. On NFSv4 and CephFS
they hold between hosts.

A lock file may be deleted by its holder. Whoever opened the old file and was waiting would then hold a lock nobody
else sees::

    A holds lock(inode 1)    B open(inode 1), waits    A unlink, release    B granted inode 1
                                                       C open creates inode 2, granted: B and C both "hold" it

so a granted lock counts only if the path still leads to the same inode, and is asked for again otherwise.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.errors import LockTimeout

_FIRST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.05


class FileLock:
    """A granted lock; released by `release`, at the end of its `with` block, or by the process's death.

    Attributes:
        descriptor: Of the lock file, close-on-exec.
    """

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; a second time does nothing."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def try_lock(path: Path, *, exclusive: bool) -> FileLock | None:
    """Take the lock on `path` if nobody is in the way, without waiting; the file is created with mode 0600.

    Returns:
        The lock, to be used as a context manager or released, or None.

    Raises:
        FileNotFoundError: The directory is missing.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if not _try_flock(descriptor, exclusive=exclusive):
                os.close(descriptor)
                return None
            if _is_at(descriptor, path):
                return FileLock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


@contextmanager
def locked(
    path: Path,
    *,
    exclusive: bool,
    timeout_seconds: float | None = None,
    check: Callable[[], None] | None = None,
) -> Iterator[FileLock]:
    """Hold the lock on `path` in the `with` block.

    Waiters are not queued: a waiter asks again after pauses that grow to 50 ms, so many holders of shared locks can
    keep an exclusive one out. Where that matters the cluster lock above it gives the order.

    Args:
        path: The file is created with mode 0600; its directory exists.
        exclusive: Alone, or together with other shared holders.
        timeout_seconds: The longest wait, >= 0; None waits for ever.
        check: Called before each pause; what it raises ends the wait.

    Raises:
        LockTimeout: Not granted in time.
        FileNotFoundError: The directory is missing, or vanished during the wait.
    """
    with _wait(path, exclusive=exclusive, timeout_seconds=timeout_seconds, check=check) as lock:
        yield lock


def _wait(path: Path, *, exclusive: bool, timeout_seconds: float | None, check: Callable[[], None] | None) -> FileLock:
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    pause_seconds = _FIRST_PAUSE_SECONDS
    while (lock := try_lock(path, exclusive=exclusive)) is None:
        if deadline is not None and timeout_seconds is not None and time.monotonic() >= deadline:
            raise LockTimeout(lock=str(path), mode="exclusive" if exclusive else "shared", seconds=timeout_seconds)
        if check is not None:
            check()
        time.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
    return lock


def _try_flock(descriptor: int, *, exclusive: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
