# SPDX-License-Identifier: Apache-2.0
"""Access control lists come out as setfacl and chmod would have left them, or not at all."""

import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.layers.erofs.acl import access_acl, default_acl
from worker.layers.refusal import Refusal

NOBODY = 2**32 - 1
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
ENTRIES = st.tuples(
    st.sampled_from([USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER, 0x40]),
    st.sampled_from([0, 4, 7, 8]),
    st.sampled_from([0, 1000, NOBODY]),
)


def acl(*entries: tuple[int, int, int], version: int = 2) -> bytes:
    """Return a list as it stands in an attribute."""
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


BASE = [(USER_OBJ, 6, NOBODY), (GROUP_OBJ, 4, NOBODY), (OTHER, 4, NOBODY)]
NAMED = [BASE[0], (USER, 7, 1000), BASE[1], (GROUP, 1, 5), (MASK, 7, NOBODY), BASE[2]]


@pytest.mark.root
@given(
    entries=st.one_of(
        st.lists(ENTRIES, max_size=7),
        st.lists(ENTRIES, max_size=3).map(lambda more: sorted([*BASE, (MASK, 5, 3), *more])),
        st.sampled_from([BASE, NAMED, []]),
    ),
    mode=st.integers(0, 0o777),
    tail=st.sampled_from([b"", b"", b"", b"x"]),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lists_are_what_the_kernel_makes_of_them(
    entries: list[tuple[int, int, int]], mode: int, tail: bytes, tmp_path: Path
) -> None:
    """The filesystem under the tests, asked with setxattr, chmod and getxattr, gives and refuses the same."""
    value = acl(*entries) + tail

    assert ours(value, mode) == kernels(value, mode, tmp_path)


def ours(value: bytes, mode: int) -> object:
    """Return both lists as we make them, or that they are refused."""
    try:
        return access_acl(value, mode=mode), default_acl(value)
    except Refusal:
        return None


def kernels(value: bytes, mode: int, directory: Path) -> object:
    """Return both lists as a filesystem has them afterwards, or that they are refused."""
    path = directory / "made"
    path.mkdir()
    try:
        for name in ("system.posix_acl_access", "system.posix_acl_default"):
            os.setxattr(path, name, value)
        path.chmod(mode)
        return kept(path, "system.posix_acl_access"), kept(path, "system.posix_acl_default")
    except OSError:
        return None
    finally:
        path.rmdir()


def kept(path: Path, name: str) -> bytes | None:
    """Return an attribute if there is one."""
    return os.getxattr(path, name) if name in os.listxattr(path) else None


def test_named_users_keep_their_list_with_the_mode_s_bits() -> None:
    """The mask takes the group's bits."""
    (_, user, group_obj, group, mask, other) = struct.iter_unpack("<HHI", access_acl(acl(*NAMED), mode=0o751)[4:])  # type: ignore[index]

    assert (user, group_obj, group) == ((USER, 7, 1000), (GROUP_OBJ, 4, NOBODY), (GROUP, 1, 5))
    assert (mask, other) == ((MASK, 5, NOBODY), (OTHER, 1, NOBODY))


@pytest.mark.parametrize(
    "value",
    [b"", b"\2\0\0", acl(*BASE, version=1), acl(*BASE)[:-1], acl(*BASE[:2]), acl(*BASE[::-1]), acl(*BASE, *BASE)],
)
def test_what_the_kernel_would_refuse_is_refused(value: bytes) -> None:
    """Both as access and as default list."""
    with pytest.raises(Refusal, match="access control list"):
        access_acl(value, mode=0o644)
    with pytest.raises(Refusal, match="access control list"):
        default_acl(value)
