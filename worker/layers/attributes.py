# SPDX-License-Identifier: Apache-2.0
"""Owner, extended attributes, mode and times of what a layer makes.

The order matters: chown(2) drops setuid bits and capabilities, so it goes first; a write drops them too, so all of it
comes after the data; a read-only mode must not keep ourselves out, so it goes last but for the times.
"""

import errno
import os

from worker.layers.refusal import Refusal, shown
from worker.layers.tar_entry import EntryType, TarEntry

DEFAULT_ACL = b"system.posix_acl_default"
ACCESS_ACL = b"system.posix_acl_access"
IMPLIED_MODE = 0o755
IMPLIED_MTIME_NS = 0
"""The same on every node: what the layer does not say cannot be the time of the pull."""

_OVERLAY_PREFIXES = (b"trusted.overlay.", b"user.overlay.")
_SELINUX = b"security.selinux"
_USER_PREFIX = b"user."
_MAY_HAVE_USER_XATTRS = frozenset({EntryType.REGULAR, EntryType.DIRECTORY})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_SQUASHED_LOSSES = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP})
_OWNER_DIR_BITS = 0o700
_OWNER_FILE_BITS = 0o400
_SET_ID_BITS = 0o6000


def set_attributes(target: int | str, entry: TarEntry, *, is_squashed: bool) -> None:
    """Give what was just made all its attributes but, for a directory, the time: it changes with each child.

    Args:
        target: A descriptor, or for what cannot be opened the magic link of an O_PATH descriptor: neither can be
            exchanged for something else meanwhile.
        entry: Says what.
        is_squashed: Owners are left as they are, attributes that need privileges are dropped, setuid and setgid bits
            too, and the owner can always read.

    Raises:
        Refusal: The filesystem cannot hold an extended attribute of this size.
        OSError: As chown(2), setxattr(2), chmod(2) and utimensat(2).
    """
    if not is_squashed:
        os.chown(target, entry.uid, entry.gid)
    if entry.xattrs:
        _set_xattrs(target, entry, is_squashed=is_squashed)
    if entry.type is not EntryType.SYMLINK:
        os.chmod(target, _mode(entry, is_squashed=is_squashed))  # noqa: PTH101 - mostly a descriptor
    if entry.type is not EntryType.DIRECTORY:
        os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))


def set_implied_attributes(descriptor: int, *, is_squashed: bool) -> None:
    """Give a directory that the layer does not list what it would most likely say, whatever the umask or setgid."""
    if not is_squashed:
        os.fchown(descriptor, 0, 0)
    os.fchmod(descriptor, IMPLIED_MODE)


def clear_xattrs(descriptor: int) -> None:
    """Take away what an earlier entry set on a directory; what hides the layers below stays."""
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return
    for name in map(os.fsencode, names):
        if not _is_ours(name):
            os.removexattr(descriptor, name)


def take_xattr(descriptor: int, name: bytes) -> bytes | None:
    """Remove an extended attribute and return it; None if there is none or the filesystem has none."""
    try:
        value = os.getxattr(descriptor, name)
        os.removexattr(descriptor, name)
    except OSError as error:
        if error.errno not in {errno.ENODATA, errno.EOPNOTSUPP}:
            raise
        return None
    return value


def is_dropped_xattr(name: bytes, entry_type: EntryType) -> bool:
    """Tell whether a layer's attribute is left out: what a layer may not say, and what its kind of file cannot have.

    Linux has user attributes on regular files and directories alone; no archive made on it holds others.
    """
    return _is_ours(name) or (name.startswith(_USER_PREFIX) and entry_type not in _MAY_HAVE_USER_XATTRS)


def _mode(entry: TarEntry, *, is_squashed: bool) -> int:
    if not is_squashed:
        return entry.mode
    # A file that is setuid root in the image would be setuid to whoever runs the worker.
    kept = entry.mode & ~_SET_ID_BITS
    return kept | (_OWNER_DIR_BITS if entry.type is EntryType.DIRECTORY else _OWNER_FILE_BITS)


def _set_xattrs(target: int | str, entry: TarEntry, *, is_squashed: bool) -> None:
    for name, value in entry.xattrs.items():
        if name == DEFAULT_ACL or is_dropped_xattr(name, entry.type):
            continue
        if is_squashed and not name.startswith(_USER_PREFIX):
            continue
        _set_xattr(target, name, value, is_squashed=is_squashed)


def _is_ours(name: bytes) -> bool:
    """Tell what a layer may not say: what overlayfs believes, and labels of the builder's host."""
    return name.startswith(_OVERLAY_PREFIXES) or name == _SELINUX


def _set_xattr(target: int | str, name: bytes, value: bytes, *, is_squashed: bool) -> None:
    try:
        os.setxattr(target, name, value)
    except OSError as error:
        if is_squashed and error.errno in _SQUASHED_LOSSES:
            return
        if error.errno in _FULL and _has_room(target):
            # ext4 says "no space" when an inode's attributes outgrow their block, on the emptiest of disks.
            raise Refusal(f"the filesystem cannot hold extended attribute {shown(name)}") from error
        raise


def _has_room(target: int | str) -> bool:
    return os.statvfs(target).f_bavail > 0
