# SPDX-License-Identifier: Apache-2.0
"""Locks exclude whom they should and end with their holder."""

import fcntl
import os
import signal
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from worker.errors import LockTimeout
from worker.linux.flock import locked, try_lock


@contextmanager
def _held_by_child(path: Path, *, exclusive: bool) -> Iterator[int]:
    """Let a child hold the lock until it is killed."""
    ready, told = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        with locked(path, exclusive=exclusive):
            os.write(told, b"x")
            signal.pause()
        os._exit(1)
    os.read(ready, 1)
    os.close(ready)
    os.close(told)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_shared_holders_share_and_exclude_an_exclusive_one(tmp_path: Path) -> None:
    """The matrix of a read-write lock."""
    path = tmp_path / "lock"

    with locked(path, exclusive=False):
        with locked(path, exclusive=False, timeout_seconds=0):
            assert try_lock(path, exclusive=True) is None
        assert try_lock(path, exclusive=True) is None
    with locked(path, exclusive=True):
        assert try_lock(path, exclusive=False) is None
        assert try_lock(path, exclusive=True) is None


def test_lock_file_is_private_and_stays(tmp_path: Path) -> None:
    """It is made with mode 0600 whatever the umask leaves, and is not passed on to programs."""
    path = tmp_path / "lock"

    with locked(path, exclusive=True) as lock:
        assert fcntl.fcntl(lock.descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_released_lock_is_free(tmp_path: Path) -> None:
    """At the end of the block, also by an exception, and at the first of several releases."""
    path = tmp_path / "lock"

    with pytest.raises(KeyError), locked(path, exclusive=True):
        raise KeyError
    lock = try_lock(path, exclusive=True)
    assert lock is not None
    lock.release()
    lock.release()

    with locked(path, exclusive=True, timeout_seconds=0):
        pass


def test_death_releases_the_lock(tmp_path: Path) -> None:
    """Nobody cleans up after a killed holder but the kernel."""
    path = tmp_path / "lock"
    with _held_by_child(path, exclusive=True):
        assert try_lock(path, exclusive=False) is None

    with locked(path, exclusive=True, timeout_seconds=0):
        pass


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    """A lock belongs to its opening of the file, not to the process."""
    path = tmp_path / "lock"
    path.touch()
    counter = tmp_path / "counter"
    counter.write_text("0")

    def add() -> None:
        for _ in range(20):
            with locked(path, exclusive=True):
                counter.write_text(str(int(counter.read_text()) + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counter.read_text() == "80"


def test_timeout_says_what_was_waited_for(tmp_path: Path) -> None:
    """The error names the lock, the use and the time."""
    path = tmp_path / "lock"

    with (
        locked(path, exclusive=False),
        pytest.raises(LockTimeout) as refusal,
        locked(path, exclusive=True, timeout_seconds=0.01),
    ):
        pass

    assert str(refusal.value) == f"lock {path} not granted for exclusive use within 0.01 s"


def test_check_ends_the_wait(tmp_path: Path) -> None:
    """What it raises comes out, and the lock is not taken."""
    path = tmp_path / "lock"
    calls: list[None] = []

    def check() -> None:
        calls.append(None)
        if len(calls) == 3:
            raise InterruptedError

    with (
        locked(path, exclusive=True),
        pytest.raises(InterruptedError),
        locked(path, exclusive=True, check=check),
    ):
        pass

    with locked(path, exclusive=True, timeout_seconds=0):
        pass


def test_lock_on_a_deleted_file_does_not_count(tmp_path: Path) -> None:
    """Whoever waited for a file that its holder deletes gets the lock on the new one."""
    path = tmp_path / "lock"
    holder = try_lock(path, exclusive=True)
    assert holder is not None

    def delete_and_release() -> None:
        path.unlink(missing_ok=True)
        holder.release()

    with locked(path, exclusive=True, check=delete_and_release) as lock:
        assert os.path.samestat(os.fstat(lock.descriptor), path.stat())


def test_lock_file_that_is_replaced_while_opened_is_opened_again(tmp_path: Path) -> None:
    """A grant on the inode that was there before is no grant; the timeline of the module docstring."""
    path = tmp_path / "lock"
    with locked(path, exclusive=True) as first:
        path.rename(tmp_path / "old")

        with locked(path, exclusive=True, timeout_seconds=0) as second:
            assert os.fstat(first.descriptor).st_ino != os.fstat(second.descriptor).st_ino


def test_lock_is_not_taken_through_a_link(tmp_path: Path) -> None:
    """Somebody's symbolic link does not make us create or lock another file."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic links"):
        try_lock(tmp_path / "lock", exclusive=True)

    assert not (tmp_path / "elsewhere").exists()


def test_missing_directory_is_an_error(tmp_path: Path) -> None:
    """Locks do not make directories."""
    with pytest.raises(FileNotFoundError):
        try_lock(tmp_path / "missing" / "lock", exclusive=True)
