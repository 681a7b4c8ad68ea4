# SPDX-License-Identifier: Apache-2.0
"""A place below the work directory where a backend may try what it is about to do for real."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.linux.flock import locked
from worker.linux.mount import unmount_tree
from worker.linux.remove import remove_tree
from worker.linux.scratch import scratch_dir

_PROBE_NAME = ".probe"
_LOCK_NAME = ".probe.lock"


@contextmanager
def probe_dir(work_dir: Path) -> Iterator[Path]:
    """Lend an empty directory below `work_dir`, of the same filesystem, to one prober at a time.

    Effect: whatever was put or mounted there is gone afterwards; what a killed prober left, before.
    """
    probe = work_dir / _PROBE_NAME
    lock_path = work_dir / _LOCK_NAME
    with locked(lock_path, exclusive=True):
        try:
            _clear(probe)
            probe.mkdir(0o700)
            yield probe
        finally:
            _clear(probe)
            lock_path.unlink(missing_ok=True)


@contextmanager
def probe_lower_dir(store_dir: Path) -> Iterator[Path]:
    """Lend an empty directory below `store_dir`, of the same filesystem, which may be another node's as well."""
    with scratch_dir(store_dir) as lower:
        yield lower


def _clear(probe: Path) -> None:
    unmount_tree(probe)
    remove_tree(probe)
