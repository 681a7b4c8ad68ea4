# SPDX-License-Identifier: Apache-2.0
"""Attributes that a filesystem would not hold are refused, and those a layer may not set are left out."""

from collections.abc import Mapping

import pytest

from worker.layers.erofs.xattrs import encode_xattrs
from worker.layers.refusal import Refusal
from worker.layers.tar_entry import EntryType, TarEntry

CAPABILITY = b"\x01\x00\x00\x02\x00\x20" + bytes(14)


def entry(xattrs: Mapping[bytes, bytes], entry_type: EntryType = EntryType.REGULAR) -> TarEntry:
    """Return an entry with these attributes."""
    return TarEntry(
        name=b"f",
        type=entry_type,
        mode=0o644,
        uid=0,
        gid=0,
        mtime_ns=0,
        size_bytes=0,
        linkname=b"",
        device=(0, 0),
        xattrs=xattrs,
        data_offset=0,
        data_bytes=0,
        extents=None,
    )


def test_no_attributes_take_no_room() -> None:
    """Nor do those that are left out."""
    dropped = {b"trusted.overlay.opaque": b"y", b"user.overlay.origin": b"", b"security.selinux": b"label"}

    assert encode_xattrs(entry({})) == encode_xattrs(entry(dropped)) == (0, b"")


def test_the_count_is_in_units_of_four_bytes() -> None:
    """Twelve bytes of header count as one; entries are padded."""
    count, encoded = encode_xattrs(entry({b"user.a": b"1", b"trusted.long": b"value"}))

    assert len(encoded) == 12 + 16 + 8
    assert count == 1 + 24 // 4
    assert encoded[12:] == b"\x04\x04\x05\0longvalue\0\0\0" + b"\x01\x01\x01\0a1\0\0"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (b"other.a", b"", "no namespace"),
        (b"user.", b"", "no namespace"),
        (b"user", b"", "no namespace"),
        (b"system.nfs4_acl", b"", "no namespace"),
        (b"user." + b"n" * 251, b"", "name is too long"),
        (b"user.a", bytes(65_536), "too large"),
        (b"security.capability", b"", "capability"),
        (b"security.capability", CAPABILITY[:-1], "capability"),
        (b"security.capability", b"\x01\x00\x00\x01" + CAPABILITY[4:], "capability"),
        (b"security.capability", CAPABILITY + bytes(4), "capability"),
    ],
)
def test_what_no_filesystem_would_hold_is_refused(name: bytes, value: bytes, reason: str) -> None:
    """By its name or its size."""
    with pytest.raises(Refusal, match=reason):
        encode_xattrs(entry({name: value}))


def test_all_together_are_bounded() -> None:
    """Many large ones would make an inode of any size."""
    with pytest.raises(Refusal, match="too large"):
        encode_xattrs(entry({b"user.a": bytes(60_000), b"user.b": bytes(60_000)}))


def test_a_symbolic_link_has_no_access_control_list() -> None:
    """Linux refuses to set one."""
    with pytest.raises(Refusal, match="symbolic link"):
        encode_xattrs(entry({b"system.posix_acl_access": b""}, EntryType.SYMLINK))


def test_user_attributes_of_special_files_are_left_out() -> None:
    """Linux has none there, and no archive made on it holds any."""
    xattrs = {b"user.a": b"1", b"trusted.b": b"2"}

    _, encoded = encode_xattrs(entry(xattrs, EntryType.FIFO))

    assert encoded[12:] == b"\x01\x04\x01\0b2\0\0"
