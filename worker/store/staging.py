# SPDX-License-Identifier: Apache-2.0
"""Staging directories: made under a flock beside them, so that a directory whose flock is free has no maker.

The flock is also how one pull per layer serves however many ask: the others wait for it and find the layer committed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.linux.flock import locked, try_lock
from worker.linux.remove import remove_tree

LOCK_SUFFIX = ".lock"


@contextmanager
def staging(staging_dir: Path, *, check: Callable[[], None] | None = None) -> Iterator[Path]:
    """Hold an empty directory that nobody else fills meanwhile; what is still in it at the end is deleted.

    `check` is called while waiting for somebody else and may raise to give up.
    """
    lock_path = staging_dir.with_name(staging_dir.name + LOCK_SUFFIX)
    with locked(lock_path, exclusive=True, check=check):
        _clear(staging_dir)
        staging_dir.mkdir(mode=0o700)
        try:
            yield staging_dir
        finally:
            _clear(staging_dir)
            # Unlinked while held: whoever waits for it notices and locks the next file of this name.
            lock_path.unlink(missing_ok=True)


def sweep_staging(directory: Path) -> int:
    """Delete what dead makers left and return how many; what a living one holds stays."""
    swept = 0
    for lock_path in sorted(directory.glob(f"*{LOCK_SUFFIX}")):
        held = try_lock(lock_path, exclusive=True)
        if held is None:
            continue
        with held:
            _clear(lock_path.with_name(lock_path.name.removesuffix(LOCK_SUFFIX)))
            lock_path.unlink(missing_ok=True)
            swept += 1
    return swept


def _clear(staging_dir: Path) -> None:
    if staging_dir.exists():
        remove_tree(staging_dir)
