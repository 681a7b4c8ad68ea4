# SPDX-License-Identifier: Apache-2.0
"""Copy owners, modes, times and extended attributes exactly.

The order matters: chown clears set-user-id bits and file capabilities, so it comes first; times come last.
Source: chown(2); capabilities(7), "File capabilities"; xattr(7).
"""

import os
import stat

_OVERLAY_PREFIXES = ("trusted.overlay.", "user.overlay.")
_LOCAL_XATTRS = frozenset({"security.selinux", "security.evm"})
"""The label follows from the place by the host's policy; the EVM signature covers the inode's number."""


def is_portable_xattr(name: str) -> bool:
    """Tell whether an attribute belongs to the file rather than to overlayfs or to the place the file is in."""
    return not name.startswith(_OVERLAY_PREFIXES) and name not in _LOCAL_XATTRS


def copy_attributes(source: str | int, target: str | int, status: os.stat_result) -> None:
    """Give `target` everything of `source` but its content.

    Without root the owner stays, and attributes that only root may set are left out.

    Args:
        source: A descriptor, or a path whose last component is not followed if it is a link.
        target: Likewise; of the same type as `source`, and nobody else's business meanwhile.
        status: Of `source`.

    Raises:
        OSError: ENOTSUP where the target's filesystem has no such attributes.
    """
    is_root = os.geteuid() == 0
    if is_root:
        _chown(target, status)
    _copy_xattrs(source, target, is_root=is_root)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))  # noqa: PTH101 - also a descriptor
    _set_times(target, status)


def _copy_xattrs(source: str | int, target: str | int, *, is_root: bool) -> None:
    """Make the target's attributes the source's; it may have inherited access lists that the source lacks."""
    wanted = set(filter(is_portable_xattr, _list_xattrs(source)))
    for name in filter(is_portable_xattr, set(_list_xattrs(target)) - wanted):
        os.removexattr(target, name, **_unfollowed(target))
    for name in wanted:
        try:
            os.setxattr(target, name, os.getxattr(source, name, **_unfollowed(source)), **_unfollowed(target))
        except PermissionError:
            if is_root:
                raise


def _list_xattrs(place: str | int) -> list[str]:
    return os.listxattr(place, **_unfollowed(place))


def _chown(target: str | int, status: os.stat_result) -> None:
    os.chown(target, status.st_uid, status.st_gid, **_unfollowed(target))


def _set_times(target: str | int, status: os.stat_result) -> None:
    times = (status.st_atime_ns, status.st_mtime_ns)
    if isinstance(target, int):
        os.utime(target, ns=times)
    else:
        os.utime(target, ns=times, follow_symlinks=False)


def _unfollowed(place: str | int) -> dict[str, bool]:
    """Not follow a link where a path is given; `os` refuses the word beside a descriptor."""
    return {} if isinstance(place, int) else {"follow_symlinks": False}
