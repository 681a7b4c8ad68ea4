# SPDX-License-Identifier: Apache-2.0
"""Extended attributes as EROFS keeps them behind an inode.

What a directory layer would not set is left out here too, and what setxattr(2) would refuse there is refused.
"""

import struct
from collections.abc import Iterator

from worker.layers.attributes import ACCESS_ACL, DEFAULT_ACL, is_dropped_xattr
from worker.layers.erofs.acl import access_acl, default_acl
from worker.layers.erofs.format import XATTR_ENTRY, XATTR_HEADER
from worker.layers.refusal import Refusal, shown
from worker.layers.tar_entry import EntryType, TarEntry

_PREFIXES = ((b"user.", 1), (b"trusted.", 4), (b"security.", 6))
_ACL_INDEXES = {ACCESS_ACL: 2, DEFAULT_ACL: 3}
_CAPABILITY = b"security.capability"
_CAPABILITY_REVISIONS = {20: 0x02000000, 24: 0x03000000}
"""The revision that a capability of each length must bear. Source: kernel 6.12, security/commoncap.c, `validheader`."""
_REVISION = struct.Struct("<I")
_REVISION_MASK = 0xFF000000
_MAX_NAME_BYTES = 255
_MAX_VALUE_BYTES = 0xFFFF
_MAX_TOTAL_BYTES = 64 * 1024
"""Far above what ext4 and XFS hold without more ado; listxattr(2) goes no further either."""


def encode_xattrs(entry: TarEntry) -> tuple[int, bytes]:
    """Return the inode's attribute count, as EROFS counts, and the attributes; (0, b"") if there are none.

    Raises:
        Refusal: An attribute is malformed, too large, or of a namespace that does not exist.
    """
    encoded = b"".join(_encoded(*parts) for parts in _kept(entry))
    if not encoded:
        return 0, b""
    if len(encoded) > _MAX_TOTAL_BYTES:
        raise Refusal("the extended attributes are too large")
    return 1 + len(encoded) // 4, XATTR_HEADER.pack(0, 0) + encoded


def _kept(entry: TarEntry) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield prefix, rest of the name and value of the attributes that count, in the order of their names."""
    for name, value in sorted(entry.xattrs.items()):
        if is_dropped_xattr(name, entry.type):
            continue
        if name in _ACL_INDEXES:
            acl = _acl(name, value, entry)
            if acl is not None:
                yield _ACL_INDEXES[name], b"", acl
        else:
            yield *_split(name), _checked(name, value)


def _acl(name: bytes, value: bytes, entry: TarEntry) -> bytes | None:
    if entry.type is EntryType.SYMLINK:
        raise Refusal("a symbolic link has an access control list")
    if name == ACCESS_ACL:
        return access_acl(value, mode=entry.mode)
    return default_acl(value) if entry.type is EntryType.DIRECTORY else None


def _split(name: bytes) -> tuple[int, bytes]:
    if len(name) > _MAX_NAME_BYTES:
        raise Refusal("an extended attribute's name is too long")
    for prefix, index in _PREFIXES:
        if name.startswith(prefix) and len(name) > len(prefix):
            return index, name.removeprefix(prefix)
    raise Refusal(f"extended attribute {shown(name)} is of no namespace that a filesystem holds")


def _checked(name: bytes, value: bytes) -> bytes:
    if len(value) > _MAX_VALUE_BYTES:
        raise Refusal("an extended attribute is too large")
    if name == _CAPABILITY:
        revision = _REVISION.unpack_from(value)[0] & _REVISION_MASK if len(value) >= _REVISION.size else None
        if revision is None or _CAPABILITY_REVISIONS.get(len(value)) != revision:
            raise Refusal("a file capability is malformed")
    return value


def _encoded(index: int, name: bytes, value: bytes) -> bytes:
    entry = XATTR_ENTRY.pack(len(name), index, len(value)) + name + value
    return entry + bytes(-len(entry) % 4)
