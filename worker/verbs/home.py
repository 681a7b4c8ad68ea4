# SPDX-License-Identifier: Apache-2.0
"""A container's directory on this node: its flock, its record, its end.

The directory appears when a provision pins its image and is renamed into the trash by destroy, always under the flock
inside it. So a provision that finds the directory gone knows that the container was destroyed meanwhile.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from worker.container_id import ContainerId
from worker.errors import ContainerDestroying, InvalidArgument
from worker.linux import durable
from worker.linux.flock import locked
from worker.paths import WorkPaths
from worker.records import ContainerRecord, read_record, write_record
from worker.store.trash import discard
from worker.verbs.waits import CONTAINER, NOWHERE, Waits

_PATH_BYTES = 4095
_LONGEST_NAME = "x" * 128


class Home:
    """One container's directory, its flock held.

    Attributes:
        container_id: The container.
    """

    def __init__(self, work: WorkPaths, container_id: ContainerId) -> None:
        self._work = work
        self.container_id = container_id

    def read(self) -> ContainerRecord:
        """Read the record; empty if there is none."""
        return read_record(self._work.record_path(self.container_id.parts))

    def write(self, record: ContainerRecord) -> None:
        """Replace the record; survives power loss, together with the directories above it.

        They were made without syncing each: one after the other the syncs find the same journal commit done.
        """
        path = self._work.record_path(self.container_id.parts)
        is_first = not path.exists()
        write_record(path, record)
        if is_first:
            durable.sync_directory(self._work.containers_dir)
            for ancestor in self.container_id.ancestors:
                durable.sync_directory(self._work.container_dir(ancestor.parts))
                durable.sync_directory(self._work.nested_dir(ancestor.parts))

    def discard(self) -> None:
        """Rename the directory into the trash, and remove ancestors' directories that held nothing else."""
        discard(self._work.container_dir(self.container_id.parts), self._work.trash_dir)
        remove_empty_ancestors(self._work, self.container_id)


@contextmanager
def opened(work: WorkPaths, container_id: ContainerId, waits: Waits = NOWHERE) -> Iterator[Home]:
    """Hold the container's flock, making its directory and its ancestors' if need be."""
    with ExitStack() as stack:
        while not _enter(stack, work, container_id, waits):
            # Also again and again: a destroy or a sibling's clean-up may take the directory away in between.
            with suppress(FileNotFoundError):
                durable.make_dirs_unsynced(work.rootfses_dir(container_id.parts))
        yield Home(work, container_id)


@contextmanager
def existing(work: WorkPaths, container_id: ContainerId, waits: Waits = NOWHERE) -> Iterator[Home]:
    """Hold the flock of a container that has a directory.

    Raises:
        ContainerDestroying: It has none (any more).
    """
    with ExitStack() as stack:
        if not _enter(stack, work, container_id, waits):
            raise ContainerDestroying(container_id=str(container_id))
        yield Home(work, container_id)


def _enter(stack: ExitStack, work: WorkPaths, container_id: ContainerId, waits: Waits) -> bool:
    path, note = work.container_lock_path(container_id.parts), partial(waits.begin, CONTAINER)
    try:
        stack.enter_context(locked(path, exclusive=True, check=note))
    except FileNotFoundError:
        return False
    finally:
        waits.end(CONTAINER)
    return True


def check_nameable(work: WorkPaths, container_id: ContainerId) -> None:
    """Refuse an id nested so deep that the kernel cannot name what would lie below its directory.

    Raises:
        InvalidArgument: Names it.
    """
    longest = work.rootfs_paths(container_id.parts, name=_LONGEST_NAME).rootfs_dir / _LONGEST_NAME
    if len(os.fsencode(longest)) > _PATH_BYTES:
        reason = f"it is nested so deep that its paths on this node exceed {_PATH_BYTES} bytes"
        raise InvalidArgument(argument="container_id", value=f"{str(container_id)[:40]}…", reason=reason)


def remove_empty_ancestors(work: WorkPaths, container_id: ContainerId) -> None:
    """Remove the directories of ancestors that exist only as such and hold no container any more."""
    for ancestor in reversed(container_id.ancestors):
        try:
            work.nested_dir(ancestor.parts).rmdir()
            if not work.container_lock_path(ancestor.parts).exists():
                work.container_dir(ancestor.parts).rmdir()
        except OSError:
            return


def containers_on_disk(work: WorkPaths) -> list[ContainerId]:
    """List the outermost containers and all nested ones, children before parents; anything else is passed over."""
    found: list[ContainerId] = []
    for name in _directories(work.containers_dir):
        with suppress(InvalidArgument):
            root = ContainerId.outermost(name)
            found += [*nested_ids(work, root), root]
    return found


def nested_ids(work: WorkPaths, container_id: ContainerId) -> list[ContainerId]:
    """List the containers below this one on disk, children before parents; anything else is passed over."""
    found: list[ContainerId] = []
    for name in _directories(work.nested_dir(container_id.parts)):
        with suppress(InvalidArgument):
            child = container_id.child(name)
            found += [*nested_ids(work, child), child]
    return found


def _directories(parent: Path) -> list[str]:
    """List the directories in one that may be missing, or no directory; links are none."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(parent) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    return []
