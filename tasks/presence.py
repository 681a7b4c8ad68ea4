# SPDX-License-Identifier: Apache-2.0
"""Which workers of a node are up: what one finds at its start is left over only if no other is at work."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from worker.linux import durable
from worker.linux.flock import locked, try_lock
from worker.paths import WorkPaths

_held = ExitStack()
"""Closed by nobody but the kernel."""


@contextmanager
def starting(work: WorkPaths) -> Iterator[bool]:
    """Start a worker in the `with` block; it is given whether no worker of this node is up.

    Effect: after the block this process counts as up, and so does every process forked from it, until the last of them
    has ended, however it ends. Whoever starts meanwhile waits before it counts.
    """
    durable.make_dirs(work.work_dir)
    alone = try_lock(work.worker_lock_path, exclusive=True)
    try:
        yield alone is not None
    finally:
        if alone is not None:
            alone.release()
    _held.enter_context(locked(work.worker_lock_path, exclusive=False))
