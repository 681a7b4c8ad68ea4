# SPDX-License-Identifier: Apache-2.0
"""What kind of filesystem a directory is on, and what it can do."""

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from worker.linux import libc
from worker.linux.mountinfo import mounts_at_or_below

_FILESYSTEMS_PATH = Path("/proc/filesystems")
_STATFS_BYTES = 256
_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_NO_AUTOMOUNT = 0x800
_STATX_BYTES = 256
_STATX_ATTRIBUTES = 8
_STATX_ATTRIBUTES_MASK = 56
_STATX_ATTR_MOUNT_ROOT = 0x2000
_DIRECTORY_BYTES = 32768
_DIRECTORY_ENTRY = struct.Struct("=16xHB")
"""getdents64(2): inode and offset, 8 bytes each, then the entry's length and type; the name follows."""
_DT_UNKNOWN = 0
_CAP_SYS_ADMIN = 21

# Source: kernel 6.12, include/uapi/linux/magic.h, and the filesystems that are not in it.
_NAMES = {
    0x61756673: "aufs",
    0xCA451A4E: "bcachefs",
    0x9123683E: "btrfs",
    0x00C36400: "ceph",
    0xFF534D42: "cifs",
    0xF15F: "ecryptfs",
    0xE0F5E1E2: "erofs",
    0xEF53: "ext",
    0xF2F52010: "f2fs",
    0x65735546: "fuse",
    0x6969: "nfs",
    0x794C7630: "overlay",
    0x858458F6: "ramfs",
    0xFE534D42: "smb3",
    0x73717368: "squashfs",
    0x01021994: "tmpfs",
    0x01021997: "9p",
    0x4D44: "vfat",
    0x58465342: "xfs",
    0x2FC12FC1: "zfs",
}


def filesystem_type(path: Path) -> str:
    """Return the name of the filesystem that holds `path`, or its magic number in hexadecimal; ext2 to ext4 are `ext`.

    Raises:
        OSError: The path cannot be reached.
    """
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    libc.call("statfs", os.fsencode(path), buffer)
    # f_type is a long whose upper half is sign extension where it is signed.
    magic = int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder) & 0xFFFFFFFF
    return _NAMES.get(magic, f"{magic:#x}")


def free_bytes(path: Path) -> int:
    """Return how many bytes an unprivileged user may still write to the filesystem that holds `path`."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def is_mount_point(path: Path) -> bool:
    """Tell whether something is mounted at `path` itself, bind mounts of the same filesystem included.

    Cost: one system call from Linux 5.8; the length of mountinfo before.
    """
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    flags = _AT_SYMLINK_NOFOLLOW | _AT_NO_AUTOMOUNT
    try:
        libc.call("statx", _AT_FDCWD, os.fsencode(path), flags, 0, buffer)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if _word(buffer, _STATX_ATTRIBUTES_MASK) & _STATX_ATTR_MOUNT_ROOT:
        return bool(_word(buffer, _STATX_ATTRIBUTES) & _STATX_ATTR_MOUNT_ROOT)
    real_path = path.parent.resolve() / path.name
    return any(mount.path == real_path for mount in mounts_at_or_below(real_path))


def is_read_only_mount(path: Path) -> bool:
    """Tell whether the mount that `path` is on, or its filesystem, refuses writes."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def tells_entry_types(directory: Path) -> bool:
    """Tell whether listing `directory` gives the entries' types (d_type), without which overlayfs shows whiteouts.

    An XFS made with ftype=0 does not, nor an ext4 made without filetype. Some tell the types of `.` and `..` all the
    same: the directory must have an entry of its own.
    """
    return all(kind != _DT_UNKNOWN for kind in _entry_kinds(directory))


def knows_filesystem(fs_type: str) -> bool:
    """Tell whether this kernel can mount a type of filesystem, loading its module if need be and possible."""
    if fs_type.encode() in _FILESYSTEMS_PATH.read_bytes().split():
        return True
    try:
        os.close(libc.system_call(libc.SYS_FSOPEN, fs_type.encode(), 1))
    except OSError:
        return False
    return True


def may_mount() -> bool:
    """Tell whether this process has the capability that mounting needs (CAP_SYS_ADMIN)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return False


def _entry_kinds(directory: Path) -> Iterator[int]:
    """Read d_type of each entry, which `os.scandir` hides behind a stat when it is unknown."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    buffer = ctypes.create_string_buffer(_DIRECTORY_BYTES)
    try:
        while size := libc.call("getdents64", descriptor, buffer, _DIRECTORY_BYTES):
            offset = 0
            while offset < size:
                length, kind = _DIRECTORY_ENTRY.unpack_from(buffer, offset)
                yield kind
                offset += length
    finally:
        os.close(descriptor)


def _word(buffer: ctypes.Array[ctypes.c_char], offset: int) -> int:
    return int.from_bytes(buffer.raw[offset : offset + 8], sys.byteorder)
