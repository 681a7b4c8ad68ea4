# SPDX-License-Identifier: Apache-2.0
"""A place below the work directory where a backend may try what it is about to do for real."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from worker.linux.copying import cloned
from worker.linux.durable import reporting_full_disk
from worker.linux.flock import locked
from worker.linux.mount import unmount_tree
from worker.linux.remove import remove_tree
from worker.linux.scratch import scratch_dir

_PROBE_NAME = ".probe"
_LOCK_NAME = ".probe.lock"
_BLOCK_BYTES = 4096


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


@cache
def shares_blocks(*, work_dir: Path, store_dir: Path) -> bool:
    """Tell whether a file copied from the store to the work directory can share its blocks.

    Cost: two files, once per process.

    Raises:
        StorageExhausted: There is no room to find out.
    """
    with reporting_full_disk(work_dir), scratch_dir(work_dir) as copies, probe_lower_dir(store_dir) as lower:
        (lower / "file").write_bytes(bytes(_BLOCK_BYTES))
        with (lower / "file").open("rb") as source, (copies / "file").open("wb") as target:
            return cloned(source.fileno(), target.fileno())


def _clear(probe: Path) -> None:
    unmount_tree(probe)
    remove_tree(probe)
