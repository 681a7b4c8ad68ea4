# SPDX-License-Identifier: Apache-2.0
"""Open relative to a descriptor: directories without leaving the mount or following a link, anything in a root.

Source: openat2(2), Linux 5.6.
"""

import ctypes
import errno
import os
from collections.abc import Sequence

from worker.linux import libc

_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_IN_ROOT = 0x10
_COMPONENTS = 15
"""So many names of at most 255 bytes fit into one path of 4,096."""
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_directory_on_mount(name: str, *, dir_fd: int, path_only: bool = False) -> int:
    """Open a directory that is no mount point: not even of the same filesystem, which `st_dev` would not show.

    Before Linux 5.6 only mount points of other filesystems are told apart.

    Args:
        name: One component, `..`, or several components of which, before Linux 5.6, only the last is looked at.
        dir_fd: Where to look.
        path_only: Open it only as a place (O_PATH), which needs no permission on it.

    Raises:
        OSError: EXDEV for a mount point; ELOOP or ENOTDIR for anything but a directory.
    """
    flags = _DIRECTORY_FLAGS | (os.O_PATH if path_only else 0)
    try:
        return _openat2(name, flags, _RESOLVE_NO_XDEV | _RESOLVE_NO_SYMLINKS, dir_fd=dir_fd)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    return _open_on_device(name, flags, dir_fd=dir_fd)


def open_in_root(path: str, *, root_fd: int, flags: int) -> int:
    """Open a path as a process whose root directory is `root_fd` would: no link and no `..` leads out of it.

    Before Linux 5.6 a path with a symbolic link or `..` on it is refused instead.

    Raises:
        OSError: ELOOP for links that lead in a circle, or into /proc.
    """
    try:
        return _openat2(path, flags | os.O_CLOEXEC, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS, dir_fd=root_fd)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    return _open_without_links([part for part in path.split("/") if part not in {"", "."}], flags, root_fd=root_fd)


def open_directory_below(top_fd: int, components: Sequence[str]) -> int:
    """Open a directory at any depth below `top_fd`, also where its path would be too long for the kernel.

    Args:
        top_fd: Stays open.
        components: Names of directories; none opens the top itself once more.

    Raises:
        OSError: As `open_directory_on_mount`.
    """
    descriptor = open_directory_on_mount(".", dir_fd=top_fd)
    for start in range(0, len(components), _COMPONENTS):
        upper = descriptor
        try:
            descriptor = open_directory_on_mount("/".join(components[start : start + _COMPONENTS]), dir_fd=upper)
        finally:
            os.close(upper)
    return descriptor


def _openat2(path: str, flags: int, resolve: int, *, dir_fd: int) -> int:
    how = _OpenHow(flags, 0, resolve)
    return libc.system_call(libc.SYS_OPENAT2, dir_fd, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))


def _open_without_links(components: Sequence[str], flags: int, *, root_fd: int) -> int:
    if ".." in components:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    descriptor = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
    for position, name in enumerate(components or ["."], start=1):
        upper = descriptor
        way = flags if position >= len(components) else os.O_PATH | os.O_DIRECTORY
        try:
            # O_PATH would open the link itself; as a directory it is refused.
            descriptor = os.open(name, way | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=upper)
        finally:
            os.close(upper)
    return descriptor


def _open_on_device(name: str, flags: int, *, dir_fd: int) -> int:
    descriptor = os.open(name, flags, dir_fd=dir_fd)
    if os.fstat(descriptor).st_dev == os.fstat(dir_fd).st_dev:
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
