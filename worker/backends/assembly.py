# SPDX-License-Identifier: Apache-2.0
"""Build the merged tree of a stack of layers in an empty directory, each visible file copied once.

The walk goes through the merged tree, not through one layer after the other. So nothing is ever written over, deleted
or written through: every name is made new in a directory made here, and a symbolic link of an image is never on the
way. Directories are opened by descriptor for one step and closed again; neither their depth nor the number of layers
costs descriptors.

Cost: time in proportion to the merged tree; memory to its largest directory, its files with several hard links, and the
directories still to be visited.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from worker.backends.merge import Kind, Shown, merge
from worker.linux.attributes import copy_attributes
from worker.linux.copying import copy_content
from worker.linux.openat2 import open_directory_below

_OPAQUE_XATTRS = ("trusted.overlay.opaque", "user.overlay.opaque")
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC

Components = tuple[str, ...]
"""A place in the tree, relative to its root."""


def assemble(layer_dirs: Sequence[Path], target_dir: Path) -> None:
    """Copy what the stack shows into `target_dir`.

    Args:
        layer_dirs: Base first, in the format DIRECTORY.
        target_dir: Existing, empty, of nobody else.

    Raises:
        OSError: As the filesystem has it; `target_dir` is then half filled.
    """
    target_fd = os.open(target_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        assembly = _Assembly(tuple(reversed(layer_dirs)), target_fd)
        assembly.run()
    finally:
        os.close(target_fd)


@dataclass(frozen=True, slots=True)
class _Step:
    """A directory to fill, or, once all below it is done, to finish: its times change with each entry made in it."""

    place: Components
    layers: tuple[int, ...]
    is_finish: bool = False


@dataclass(slots=True)
class _Assembly:
    layer_dirs: tuple[Path, ...]
    target_fd: int
    links: dict[tuple[int, int, int], Components] = field(default_factory=dict)
    """(layer, device, inode) of a file with several names -> where its first name was copied to."""

    def run(self) -> None:
        steps = [_Step((), tuple(range(len(self.layer_dirs))))]
        while steps:
            step = steps.pop()
            if step.is_finish:
                self._finish(step)
            else:
                steps.append(_Step(step.place, step.layers, is_finish=True))
                steps.extend(self._fill(step))

    def _fill(self, step: _Step) -> Iterator[_Step]:
        """Make all entries of one directory; yield the directories among them."""
        shown = merge(self._listings(step))
        with _opened_below(self.target_fd, step.place) as target:
            self._copy_others(shown, step, target=target)
            for name, entry in shown.items():
                if entry.is_directory:
                    os.mkdir(name, 0o700, dir_fd=target)
                    yield _Step((*step.place, name), entry.layers)

    def _listings(self, step: _Step) -> list[tuple[int, Mapping[str, Kind]]]:
        """List the directory in each layer that contributes to it, down to the first opaque one."""
        listings: list[tuple[int, Mapping[str, Kind]]] = []
        for layer in step.layers:
            with self._opened_in_layer(layer, step.place) as source:
                listings.append((layer, _kinds(source)))
                if _is_opaque(source):
                    break
        return listings

    def _copy_others(self, shown: Mapping[str, Shown], step: _Step, *, target: int) -> None:
        by_layer: dict[int, list[str]] = {}
        for name, entry in shown.items():
            if not entry.is_directory:
                by_layer.setdefault(entry.layers[0], []).append(name)
        for layer, names in by_layer.items():
            with self._opened_in_layer(layer, step.place) as source:
                for name in names:
                    self._copy_entry(layer, (*step.place, name), source=source, target=target)

    def _copy_entry(self, layer: int, place: Components, *, source: int, target: int) -> None:
        name = place[-1]
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if status.st_nlink > 1:
            first = self.links.setdefault((layer, status.st_dev, status.st_ino), place)
            if first is not place:
                self._link(first, name, target=target)
                return
        if stat.S_ISREG(status.st_mode):
            _copy_file(name, status, source=source, target=target)
        else:
            _copy_special(name, status, source=source, target=target)

    def _link(self, first: Components, name: str, *, target: int) -> None:
        with _opened_below(self.target_fd, first[:-1]) as directory:
            os.link(first[-1], name, src_dir_fd=directory, dst_dir_fd=target, follow_symlinks=False)

    def _finish(self, step: _Step) -> None:
        with (
            self._opened_in_layer(step.layers[0], step.place) as source,
            _opened_below(self.target_fd, step.place) as target,
        ):
            copy_attributes(source, target, os.fstat(source))

    @contextmanager
    def _opened_in_layer(self, layer: int, place: Components) -> Iterator[int]:
        top = os.open(self.layer_dirs[layer], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _opened_below(top, place) as descriptor:
                yield descriptor
        finally:
            os.close(top)


@contextmanager
def _opened_below(top: int, place: Components) -> Iterator[int]:
    descriptor = open_directory_below(top, place)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _kinds(directory: int) -> dict[str, Kind]:
    with os.scandir(directory) as entries:
        return {entry.name: _kind(entry) for entry in entries}


def _kind(entry: "os.DirEntry[str]") -> Kind:
    if entry.is_dir(follow_symlinks=False):
        return Kind.DIRECTORY
    if entry.is_file(follow_symlinks=False) or entry.is_symlink():
        return Kind.OTHER
    status = entry.stat(follow_symlinks=False)
    return Kind.WHITEOUT if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0 else Kind.OTHER


def _is_opaque(directory: int) -> bool:
    present = os.listxattr(directory)
    return any(name in present and os.getxattr(directory, name) == b"y" for name in _OPAQUE_XATTRS)


def _copy_file(name: str, status: os.stat_result, *, source: int, target: int) -> None:
    source_file = os.open(name, _OLD_FILE, dir_fd=source)
    try:
        target_file = os.open(name, _NEW_FILE, 0o600, dir_fd=target)
        try:
            copy_content(source_file, target_file, status)
            copy_attributes(source_file, target_file, status)
        finally:
            os.close(target_file)
    finally:
        os.close(source_file)


def _copy_special(name: str, status: os.stat_result, *, source: int, target: int) -> None:
    """Copy a symbolic link, a fifo, a socket or a device; its attributes go by path, unfollowed."""
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        os.mknod(name, stat.S_IFMT(status.st_mode) | stat.S_IRUSR | stat.S_IWUSR, status.st_rdev, dir_fd=target)
    copy_attributes(f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{name}", status)
