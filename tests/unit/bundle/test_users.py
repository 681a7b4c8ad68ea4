# SPDX-License-Identifier: Apache-2.0
"""Users as images write them, by account files as images hold them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.bundle.users import GROUP_PATH, PASSWD_PATH, ProcessUser, resolve_user, resolve_user_and_group
from worker.errors import UserNotFound

FILES = {
    PASSWD_PATH: (
        b"# comment\n\nbroken\nhalf:x:12\nwrong:x:ten:11::/:/bin/sh\nhuge:x:4294967296:0::/:\n"
        b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/srv:/bin/sh\r\napp:x:7:7:later:/:\n"
        b"caf\xc3\xa9:x:1200:1200::/:\n"
    ),
    GROUP_PATH: (
        b"root:x:0:\napps:x:1001:app\nextra:x:1002:other,app\nextra2:x:1003:app,\nothers:x:1004:apple\n"
        b"twice:x:1002:app\nbroken:x:many:app\n#commented:x:1009:app\nshort:x\n"
    ),
}


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", ProcessUser()),
        ("root", ProcessUser()),
        ("0", ProcessUser()),
        ("app", ProcessUser(uid=1000, gid=1001, additional_gids=(1002, 1003))),
        ("app:extra", ProcessUser(uid=1000, gid=1002)),
        ("app:5", ProcessUser(uid=1000, gid=5)),
        ("1000", ProcessUser(uid=1000, gid=1001)),
        ("1000:1000", ProcessUser(uid=1000, gid=1000)),
        ("1000:extra", ProcessUser(uid=1000, gid=1002)),
        ("0007", ProcessUser(uid=7, gid=7)),
        ("4242", ProcessUser(uid=4242, gid=0)),
        ("4242:4343", ProcessUser(uid=4242, gid=4343)),
        ("2147483647", ProcessUser(uid=2147483647, gid=0)),
        ("café", ProcessUser(uid=1200, gid=1200)),
    ],
)
def test_every_form_is_resolved(user: str, expected: ProcessUser) -> None:
    """Names by the files, numbers as they are; groups of a user by name alone."""
    assert resolve_user(user, FILES.get) == expected


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ("nobody", "/etc/passwd has no user 'nobody'"),
        ("app:nobody", "/etc/group has no group 'nobody'"),
        ("half", "has no user"),
        ("wrong", "has no user"),
        ("huge", "has no user"),
        ("# comment", "has no user"),
        ("App", "has no user"),
        (" app", "has no user"),
        ("-1", "has no user '-1'"),
        ("+1", "has no user"),
        ("1_000", "has no user"),
        ("\u0661", "has no user"),
        ("app:", "it is not USER or USER:GROUP"),
        (":apps", "it is not USER or USER:GROUP"),
        (":", "it is not USER or USER:GROUP"),
        ("app:apps:x", "has no group 'apps:x'"),
        ("2147483648", "ids go up to 2147483647"),
        ("4294967296", "ids go up to"),
        ("0:18446744073709551616", "ids go up to"),
        ("9" * 5000, "ids go up to"),
    ],
)
def test_what_names_nobody_is_an_error_that_names_it(user: str, reason: str) -> None:
    """Never root instead of somebody unknown."""
    with pytest.raises(UserNotFound) as raised:
        resolve_user(user, FILES.get)

    assert reason in str(raised.value)
    assert user[:100] in str(raised.value) or repr(user)[1:100] in str(raised.value)


@pytest.mark.parametrize(
    ("user", "group", "expected"),
    [
        ("app", "apps", ProcessUser(uid=1000, gid=1001, additional_gids=(1002, 5))),
        ("app", "extra", ProcessUser(uid=1000, gid=1002, additional_gids=(5,))),
        ("7", "8", ProcessUser(uid=7, gid=8, additional_gids=(1002, 5))),
        ("/srv/data", "/bin/x", ProcessUser(uid=70, gid=81, additional_gids=(1002, 5))),
        ("/srv/data", "apps", ProcessUser(uid=70, gid=1001, additional_gids=(1002, 5))),
        ("0", "/srv/data", ProcessUser(uid=0, gid=71, additional_gids=(1002, 5))),
    ],
)
def test_user_and_group_apart_may_be_the_owner_of_a_path(user: str, group: str, expected: ProcessUser) -> None:
    """With the groups that the image lists, once each, and none of those that /etc/group has for the user."""
    owners = {"/srv/data": (70, 71), "/bin/x": (80, 81)}

    found = resolve_user_and_group(user, group, additional_gids=[1002, 5, 1002], read=FILES.get, find_owner=owners.get)

    assert found == expected


@pytest.mark.parametrize(
    ("user", "group", "gids", "reason"),
    [
        ("/none", "0", [], "there is no '/none'"),
        ("0", "/none", [], "there is no '/none'"),
        ("/huge", "0", [], "ids go up to 2147483647"),
        ("0", "0", [2**31], "ids go up to 2147483647"),
        ("0", "0", [-1], "ids go up to"),
        ("nobody", "0", [], "has no user 'nobody'"),
        ("0", "nobody", [], "has no group 'nobody'"),
        ("0", "apps:/srv", [], "has no group 'apps:/srv'"),
    ],
)
def test_what_names_nobody_apart_is_an_error(user: str, group: str, gids: list[int], reason: str) -> None:
    """Both are shown; a colon in either leads nowhere else."""
    with pytest.raises(UserNotFound) as raised:
        resolve_user_and_group(user, group, additional_gids=gids, read=FILES.get, find_owner={"/huge": (2**31, 0)}.get)

    assert reason in str(raised.value)
    assert f"'{user}:{group}'" in str(raised.value)


def test_a_path_is_no_user_of_an_image_configuration() -> None:
    """Only Appc knows it: elsewhere a slip of the author's would run as root."""
    with pytest.raises(UserNotFound, match="has no user '/bin/sh'"):
        resolve_user("/bin/sh", FILES.get)


def test_numbers_need_no_files() -> None:
    """An image from scratch may have none."""
    assert resolve_user("5:6", {}.get) == ProcessUser(uid=5, gid=6)
    assert resolve_user("5", {}.get) == ProcessUser(uid=5, gid=0)


def test_a_name_needs_a_file() -> None:
    """Even root's."""
    with pytest.raises(UserNotFound, match="has no user 'root'"):
        resolve_user("root", {}.get)


@given(st.text(alphabet="0123456789:app\n", max_size=12), st.binary(max_size=60), st.binary(max_size=60))
def test_any_files_give_ids_in_range_or_a_refusal(user: str, passwd: bytes, group: bytes) -> None:
    """An author's files cannot make anything else of it."""
    try:
        found = resolve_user(user, {PASSWD_PATH: passwd, GROUP_PATH: group}.get)
    except UserNotFound:
        return

    assert all(0 <= number < 2**31 for number in (found.uid, found.gid, *found.additional_gids))
