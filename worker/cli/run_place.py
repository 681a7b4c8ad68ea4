# SPDX-License-Identifier: Apache-2.0
"""Where one `provisioner run` keeps its bundle, and what is left of it when everybody who should clean up was killed.

::

    WORK_DIR/runs/<id>/         bundle; `<id>` is the runtime's name for the container too
    WORK_DIR/runs/<id>.lock     flock of the command and its guard; it names the runtime

An unlocked lock file is a dead run's: the container of exactly that id is deleted, and then its bundle.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from worker.cli.oci_runtime import RUNTIMES, OciRuntime
from worker.container_id import ContainerId
from worker.linux import durable
from worker.linux.cgroups import remove_cgroups
from worker.linux.flock import try_lock
from worker.linux.remove import remove_tree
from worker.paths import WorkPaths

_LOCK_SUFFIX = ".lock"
_PREFIX = "provisioner-"
_SHOWN_CHARS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlace:
    """One run's directory and name.

    Attributes:
        run_id: Unique on the host, and in the form that runtimes and cgroups take.
        bundle_dir: The directory.
        runtime: What runs it.
    """

    run_id: str
    bundle_dir: Path
    runtime: OciRuntime

    def clear(self) -> None:
        """Delete the container, then the bundle, then the lock file. Safe to repeat.

        crun that is killed between the program's start and its own note of it does not know the container afterwards.
        The cgroup does: whatever runs in it is killed.

        Raises:
            RuntimeError: The container cannot be deleted; the place stays for a later sweep.
        """
        if not self.runtime.delete(self.run_id):
            raise RuntimeError(f"{self.runtime.path} cannot delete container {self.run_id}")
        if not remove_cgroups(self.run_id):
            raise RuntimeError(f"what runs in cgroup {self.run_id} cannot be killed")
        remove_tree(self.bundle_dir)
        _lock_path(self.bundle_dir).unlink(missing_ok=True)


@contextmanager
def run_place(work: WorkPaths, container_id: ContainerId, runtime: OciRuntime) -> Iterator[RunPlace]:
    """Lend a new place; whoever forked meanwhile keeps it locked afterwards.

    Effect: what dead runs left is cleared first. It is not cleared at the end, which is the guard's part.
    """
    durable.make_dirs_unsynced(work.runs_dir)
    sweep_runs(work)
    run_id = f"{_PREFIX}{str(container_id)[:_SHOWN_CHARS]}-{secrets.token_hex(8)}"
    place = RunPlace(run_id=run_id, bundle_dir=work.runs_dir / run_id, runtime=runtime)
    lock_path = _lock_path(place.bundle_dir)
    held = try_lock(lock_path, exclusive=True)
    if held is None:
        raise RuntimeError(f"{lock_path} has a name that nobody else can know, and is locked")
    with held:
        lock_path.write_text(runtime.path, encoding="utf-8")
        place.bundle_dir.mkdir(0o700)
        yield place


def sweep_runs(work: WorkPaths) -> int:
    """Clear what dead runs left and return how many there were; one that cannot be cleared stays."""
    cleared = 0
    for lock_path in sorted(work.runs_dir.glob(f"{_PREFIX}*{_LOCK_SUFFIX}")):
        held = try_lock(lock_path, exclusive=True)
        if held is not None:
            with held:
                cleared += _clear_dead(lock_path)
    return cleared


def _clear_dead(lock_path: Path) -> bool:
    bundle_dir = lock_path.with_name(lock_path.name.removesuffix(_LOCK_SUFFIX))
    program = lock_path.read_text(encoding="utf-8", errors="replace")
    if Path(program).name not in RUNTIMES:
        # Killed before it wrote the name, so before it started anything.
        program = ""
    place = RunPlace(run_id=bundle_dir.name, bundle_dir=bundle_dir, runtime=OciRuntime(program))
    try:
        if program:
            place.clear()
        else:
            remove_tree(bundle_dir)
            lock_path.unlink(missing_ok=True)
    except (OSError, RuntimeError):
        return False
    return True


def _lock_path(bundle_dir: Path) -> Path:
    return bundle_dir.with_name(bundle_dir.name + _LOCK_SUFFIX)
