# SPDX-License-Identifier: Apache-2.0
"""What is mounted, as the kernel says it.

Source: kernel 6.12, Documentation/filesystems/proc.rst, "/proc/<pid>/mountinfo".
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_MOUNTINFO_PATH = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(rb"[\s\\#]")
_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class MountPoint:
    """One line of mountinfo.

    Attributes:
        mount_id: Unique while the mount lives; may be used again afterwards.
        parent_id: Of the mount it is mounted on.
        device: `major:minor`, as in `st_dev`.
        root: The directory of the filesystem that is shown.
        path: Where.
        options: Of this mount, such as `ro` and `nodev`.
        propagation: Such as `shared:7` and `master:3`; empty when private.
        fs_type: Such as `overlay`.
        source: What the filesystem calls its source.
        super_options: Of the filesystem, such as overlay's `upperdir=…`.
    """

    mount_id: int
    parent_id: int
    device: str
    root: str
    path: Path
    options: tuple[str, ...]
    propagation: tuple[str, ...]
    fs_type: str
    source: str
    super_options: tuple[str, ...]

    @property
    def is_shared(self) -> bool:
        """Whether mounts made below it appear in its peers."""
        return any(field.startswith("shared:") for field in self.propagation)

    @property
    def is_slave(self) -> bool:
        """Whether mounts made below its master appear in it."""
        return any(field.startswith("master:") for field in self.propagation)


def read_mounts() -> tuple[MountPoint, ...]:
    """Return every mount of this process's mount namespace, in the order they were made.

    Cost: proportional to the mounts of the host.
    """
    return tuple(parse_mounts(_MOUNTINFO_PATH.read_bytes()))


def parse_mounts(content: bytes) -> Iterable[MountPoint]:
    """Parse the text of mountinfo."""
    return (_parse_line(line) for line in content.split(b"\n") if line)


def mounts_at_or_below(path: Path, mounts: Iterable[MountPoint] | None = None) -> tuple[MountPoint, ...]:
    """Return the mounts at `path` or below it, in the order in which they can be unmounted.

    Several may be stacked on one path: the last one made is the visible one and comes first.

    Args:
        path: Absolute and free of symbolic links, as mountinfo has it.
        mounts: Taken from the kernel unless given.
    """
    if mounts is None:
        mounts = parse_mounts(_lines_with(path))
    return tuple(_children_first([mount for mount in mounts if mount.path.is_relative_to(path)]))


def mount_that_holds(path: Path) -> MountPoint:
    """Return the mount on which an existing path lies, free of symbolic links."""
    above = [mount for mount in read_mounts() if path.is_relative_to(mount.path)]
    return max(enumerate(above), key=lambda item: (len(item[1].path.parts), item[0]))[1]


def _lines_with(path: Path) -> bytes:
    """Read mountinfo without most of what is mounted elsewhere: parsing the mounts of a big host takes a while."""
    needle = os.fsencode(path)
    content = _MOUNTINFO_PATH.read_bytes()
    if _ESCAPED.search(needle):
        return content
    return b"\n".join(line for line in content.split(b"\n") if needle in line)


def _children_first(mounts: list[MountPoint]) -> list[MountPoint]:
    """Order by depth in the mount tree: a mount's parent is not always on a shorter path (stacked mounts share it)."""
    by_id = {mount.mount_id: mount for mount in mounts}

    def depth(mount: MountPoint) -> int:
        steps = 0
        while (parent := by_id.get(mount.parent_id)) is not None and parent is not mount:
            mount, steps = parent, steps + 1
        return steps

    return sorted(mounts, key=depth, reverse=True)


def _parse_line(line: bytes) -> MountPoint:
    fields = line.split(b" ")
    separator = fields.index(b"-", 6)
    super_options = fields[separator + 3] if len(fields) > separator + 3 else b""
    return MountPoint(
        mount_id=int(fields[0]),
        parent_id=int(fields[1]),
        device=fields[2].decode(),
        root=_unescaped(fields[3]),
        path=Path(_unescaped(fields[4])),
        options=tuple(fields[5].decode().split(",")),
        propagation=tuple(field.decode() for field in fields[6:separator]),
        fs_type=_unescaped(fields[separator + 1]),
        source=_unescaped(fields[separator + 2]),
        super_options=tuple(_unescaped(super_options).split(",")),
    )


def _unescaped(field: bytes) -> str:
    r"""Undo the kernel's `\040` for blanks, tabs, newlines and backslashes."""
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field))
