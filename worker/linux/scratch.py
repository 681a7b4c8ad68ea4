# SPDX-License-Identifier: Apache-2.0
"""A directory to try something in, on a filesystem that others use as well."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.linux.flock import locked, try_lock
from worker.linux.mount import unmount_tree
from worker.linux.remove import remove_tree

_PREFIX = ".probe-"
_LOCK_SUFFIX = ".lock"


@contextmanager
def scratch_dir(parent: Path) -> Iterator[Path]:
    """Lend an empty directory below `parent`, to any number of users at a time.

    Effect: whatever was put or mounted there is gone afterwards; what a killed user left there, before. A user lives as
        long as it holds the flock beside its directory.
    """
    _sweep(parent)
    scratch = parent / f"{_PREFIX}{secrets.token_hex(8)}"
    lock_path = scratch.with_name(scratch.name + _LOCK_SUFFIX)
    with locked(lock_path, exclusive=True):
        try:
            scratch.mkdir(0o700)
            yield scratch
        finally:
            _clear(scratch)
            lock_path.unlink(missing_ok=True)


def _sweep(parent: Path) -> None:
    for lock_path in parent.glob(f"{_PREFIX}*{_LOCK_SUFFIX}"):
        held = try_lock(lock_path, exclusive=True)
        if held is not None:
            with held:
                _clear(lock_path.with_name(lock_path.name.removesuffix(_LOCK_SUFFIX)))
                lock_path.unlink(missing_ok=True)


def _clear(scratch: Path) -> None:
    unmount_tree(scratch)
    remove_tree(scratch)
