# SPDX-License-Identifier: Apache-2.0
"""`user[:group]` of an image -> the numbers a process starts with.

Numbers are taken as they are. Names are looked up in the rootfs's own files, which an image's author wrote: nothing in
them is trusted but the lines that can be read. Supplementary groups are those of a user given by name without a
group; conversion.md wants none otherwise.

Source: image-spec v1.1.1, conversion.md, "Config.User"; passwd(5), group(5).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from worker.errors import UserNotFound

PASSWD_PATH = "/etc/passwd"  # noqa: S105 - a path, and no passwords in it
GROUP_PATH = "/etc/group"

ReadAccounts = Callable[[str], bytes | None]
"""Returns the content of a file in the rootfs, or None if it has none there."""

FindOwner = Callable[[str], tuple[int, int] | None]
"""Returns uid and gid of what is at a path in the rootfs, or None if it has nothing there."""

_LARGEST_ID = 2**31 - 1
"""runc takes no larger one; beyond 32 bits others wrapped it round to root's (CVE-2024-40635)."""

_PASSWD_FIELDS = 4
_GROUP_FIELDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUser:
    """`process.user` of a runtime configuration.

    Attributes:
        additional_gids: In the order of /etc/group or of the image, without the primary one.
    """

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Account:
    name: bytes
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class _Group:
    name: bytes
    gid: int
    members: tuple[bytes, ...]


def resolve_user(user: str, read: ReadAccounts) -> ProcessUser:
    """Return the numbers behind `user`; root's when it is empty.

    Raises:
        UserNotFound: A name that the rootfs does not know, a number out of range, or neither.
    """
    if not user:
        return ProcessUser()
    name, colon, group = user.partition(":")
    if not name or (colon and not group):
        raise UserNotFound(user=user, reason="it is not USER or USER:GROUP")
    account = _account(name, user, read, is_group_given=bool(group))
    if group:
        return ProcessUser(uid=account.uid, gid=_gid(group, user, read))
    if not account.name:
        return ProcessUser(uid=account.uid, gid=account.gid)
    gids = (each.gid for each in _groups(read) if account.name in each.members and each.gid != account.gid)
    return ProcessUser(uid=account.uid, gid=account.gid, additional_gids=tuple(dict.fromkeys(gids)))


def resolve_user_and_group(
    user: str, group: str, *, additional_gids: Sequence[int], read: ReadAccounts, find_owner: FindOwner
) -> ProcessUser:
    """Return the numbers behind what an Appc image names apart: each a name, a number, or a path, whose owner is meant.

    Source: appc spec 0.8.11, aci.md, "Image Manifest Schema".

    Raises:
        UserNotFound: A name or path that the rootfs does not have, or a number out of range.
    """
    shown = f"{user}:{group}"
    is_owner, is_owning_group = (each.startswith("/") for each in (user, group))
    uid = _owner(user, shown, find_owner)[0] if is_owner else _account(user, shown, read, is_group_given=True).uid
    gid = _owner(group, shown, find_owner)[1] if is_owning_group else _gid(group, shown, read)
    for number in (uid, gid, *additional_gids):
        _check_range(number, shown)
    gids = tuple(each for each in dict.fromkeys(additional_gids) if each != gid)
    return ProcessUser(uid=uid, gid=gid, additional_gids=gids)


def _owner(path: str, user: str, find_owner: FindOwner) -> tuple[int, int]:
    owner = find_owner(path)
    if owner is None:
        raise UserNotFound(user=user, reason=f"there is no {path!r:.160} to be the owner of")
    return owner


def _account(name: str, user: str, read: ReadAccounts, *, is_group_given: bool) -> _Account:
    """Find the account; one given by number has no name, and group 0 unless the rootfs knows better."""
    number = _number(name, user)
    if number is not None:
        gids = () if is_group_given else (account.gid for account in _accounts(read) if account.uid == number)
        return _Account(b"", number, next(iter(gids), 0))
    content_name = name.encode(errors="surrogateescape")
    for account in _accounts(read):
        if account.name == content_name:
            return account
    raise UserNotFound(user=user, reason=f"{PASSWD_PATH} has no user {name!r}")


def _gid(group: str, user: str, read: ReadAccounts) -> int:
    number = _number(group, user)
    if number is not None:
        return number
    name = group.encode(errors="surrogateescape")
    for each in _groups(read):
        if each.name == name:
            return each.gid
    raise UserNotFound(user=user, reason=f"{GROUP_PATH} has no group {group!r}")


def _number(text: str, user: str) -> int | None:
    if not re.fullmatch("[0-9]+", text):
        return None
    # Python refuses to parse thousands of digits, and no id has more than ten.
    number = int(text) if len(text.lstrip("0")) <= len(str(_LARGEST_ID)) else _LARGEST_ID + 1
    _check_range(number, user)
    return number


def _check_range(number: int, user: str) -> None:
    if not 0 <= number <= _LARGEST_ID:
        raise UserNotFound(user=user, reason=f"ids go up to {_LARGEST_ID}")


def _accounts(read: ReadAccounts) -> Iterator[_Account]:
    for fields in _lines(read(PASSWD_PATH)):
        if len(fields) >= _PASSWD_FIELDS:
            uid, gid = _field_number(fields[2]), _field_number(fields[3])
            if uid is not None and gid is not None:
                yield _Account(fields[0], uid, gid)


def _groups(read: ReadAccounts) -> Iterator[_Group]:
    for fields in _lines(read(GROUP_PATH)):
        if len(fields) >= _GROUP_FIELDS and (gid := _field_number(fields[2])) is not None:
            yield _Group(fields[0], gid, tuple(fields[3].split(b",")))


def _lines(content: bytes | None) -> Iterator[list[bytes]]:
    for line in (content or b"").splitlines():
        stripped = line.strip()
        if stripped and not stripped.startswith(b"#"):
            yield stripped.split(b":")


def _field_number(field: bytes) -> int | None:
    if not re.fullmatch(rb"[0-9]{1,10}", field) or int(field) > _LARGEST_ID:
        return None
    return int(field)
