# SPDX-License-Identifier: Apache-2.0
"""POSIX access control lists as setxattr(2) would leave them on a filesystem.

The kernel checks a list when it is set, not when it reads one from a disk that it trusts, so the check is ours.

Source: kernel 6.12, fs/posix_acl.c: `posix_acl_from_xattr`, `posix_acl_valid`, `posix_acl_equiv_mode`,
`__posix_acl_chmod_masq`; include/uapi/linux/posix_acl_xattr.h.
"""

import re
import struct

from worker.layers.refusal import Refusal

_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_VERSION = 2
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_LETTERS = {_USER_OBJ: "U", _USER: "u", _GROUP_OBJ: "G", _GROUP: "g", _MASK: "m", _OTHER: "o"}
_VALID = re.compile(r"UG(m?)o|Uu*Gg*mo")
"""The tags in order: named users and groups only with a mask."""
_NO_ID = 0xFFFFFFFF
_NAMED = frozenset({_USER, _GROUP})
_PERMISSIONS = 0o7

_Entry = tuple[int, int, int]
"""Tag, permissions, user or group id."""


def default_acl(value: bytes) -> bytes | None:
    """Return a directory's default list as it would be read back, or None if it is empty.

    Raises:
        Refusal: The kernel would refuse it.
    """
    entries = _parsed(value)
    return _packed(entries) if entries else None


def access_acl(value: bytes, *, mode: int) -> bytes | None:
    """Return an access list as it would be read back after chmod(2) to `mode`, or None if the mode says it all.

    Raises:
        Refusal: The kernel would refuse it.
    """
    entries = _parsed(value)
    tags = {tag for tag, _, _ in entries}
    if not tags & {_USER, _GROUP, _MASK}:
        return None
    group = _MASK if _MASK in tags else _GROUP_OBJ
    by_mode = {_USER_OBJ: mode >> 6, group: mode >> 3, _OTHER: mode}
    return _packed([(tag, by_mode.get(tag, permissions) & _PERMISSIONS, owner) for tag, permissions, owner in entries])


def _parsed(value: bytes) -> list[_Entry]:
    if len(value) < _HEADER.size or (len(value) - _HEADER.size) % _ENTRY.size:
        raise _invalid()
    if _HEADER.unpack_from(value) != (_VERSION,):
        raise Refusal("an access control list is of an unknown version")
    entries = list(_ENTRY.iter_unpack(value[_HEADER.size :]))
    order = "".join(_LETTERS.get(tag, "?") for tag, _, _ in entries)
    if entries and not _VALID.fullmatch(order):
        raise _invalid()
    if any(permissions & ~_PERMISSIONS or (tag in _NAMED and owner == _NO_ID) for tag, permissions, owner in entries):
        raise _invalid()
    return entries


def _packed(entries: list[_Entry]) -> bytes:
    return _HEADER.pack(_VERSION) + b"".join(
        _ENTRY.pack(tag, permissions, owner if tag in _NAMED else _NO_ID) for tag, permissions, owner in entries
    )


def _invalid() -> Refusal:
    return Refusal("an access control list is invalid")
