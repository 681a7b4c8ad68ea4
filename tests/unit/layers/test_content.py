# SPDX-License-Identifier: Apache-2.0
"""Attributes come out as they went in, and hard links are links."""

import errno
import os
import struct
import subprocess
from pathlib import Path

import pytest

from tests.support.tar import BlockDevice, CharDevice, Dir, Entry, Fifo, File, Hardlink, Symlink, Whiteout
from tests.unit.layers.harness import build, limits, read_entries, snapshot, unpack
from worker.errors import InvalidLayer

CAP_NET_RAW = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
"""Version 2, effective, cap_net_raw: what `setcap cap_net_raw=ep` writes."""

MTIMES = [0, 1, 999_999_999, 1_700_000_000_123_456_789, -1, -1_500_000_001, 2**33 * 10**9 + 7]

EVERY_TYPE = [
    Dir("d"),
    File("f", b"x"),
    Symlink("s", "/nowhere"),
    CharDevice("c", 1, 3),
    BlockDevice("b", 7, 0),
    Fifo("p"),
]


@pytest.mark.root
def test_everything_an_entry_says_is_on_disk(tmp_path: Path) -> None:
    """Owner, mode, time and extended attributes, of every type of entry."""
    attributes = {"mode": 0o4751, "uid": 70_000, "gid": 4_294_967_294, "mtime_ns": 1_234_567_890_987_654_321}
    entries = [
        Dir("d", xattrs={"user.a": b"\0\xff", "trusted.t": b"1"}, **attributes),
        File("f", b"data", xattrs={"user.a": b"\0\xff", "security.capability": CAP_NET_RAW}, **attributes),
        Symlink("s", "/nowhere", xattrs={"trusted.t": b"1"}, **attributes),
        CharDevice("c", 10, 229, xattrs={"trusted.t": b"1"}, **attributes),
        BlockDevice("b", 259, 70_000, **attributes),
        Fifo("p", xattrs={"trusted.t": b"1"}, **attributes),
    ]

    unpack(entries, tmp_path)

    nodes = snapshot(tmp_path)
    assert {nodes[path].owner for path in "dfscbp"} == {(70_000, 4_294_967_294)}
    assert {nodes[path].mode for path in "dfcbp"} == {0o4751}
    assert {nodes[path].mtime_ns for path in "dfscbp"} == {1_234_567_890_987_654_321}
    assert {path: nodes[path].content for path in "fscb"} == {
        "f": b"data",
        "s": "/nowhere",
        "c": (10, 229),
        "b": (259, 70_000),
    }
    assert nodes["d"].xattrs == {"user.a": b"\0\xff", "trusted.t": b"1"}
    assert nodes["f"].xattrs == {"user.a": b"\0\xff", "security.capability": CAP_NET_RAW}
    assert [nodes[path].xattrs for path in "scbp"] == [
        {"trusted.t": b"1"},
        {"trusted.t": b"1"},
        {},
        {"trusted.t": b"1"},
    ]


@pytest.mark.parametrize("mtime_ns", MTIMES)
def test_times_are_exact_to_the_nanosecond(mtime_ns: int, tmp_path: Path) -> None:
    """Also of directories, in which things are made after their own entry."""
    unpack(
        [Dir("d", mtime_ns=mtime_ns), File("d/f", mtime_ns=mtime_ns), Symlink("d/s", "x", mtime_ns=mtime_ns)], tmp_path
    )

    nodes = snapshot(tmp_path)
    assert {nodes[path].mtime_ns for path in ("d", "d/f", "d/s")} == {mtime_ns}


@pytest.mark.parametrize("mode", [0o000, 0o111, 0o644, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777])
@pytest.mark.root
def test_modes_are_exact_whatever_the_umask(mode: int, tmp_path: Path) -> None:
    """Setuid, setgid and sticky bits survive the chown."""
    before = os.umask(0o077)
    try:
        unpack([Dir("d", mode=mode, uid=7), File("d/f", mode=mode, uid=7), Fifo("d/p", mode=mode, uid=7)], tmp_path)
    finally:
        os.umask(before)

    nodes = snapshot(tmp_path)
    assert {nodes[path].mode for path in ("d", "d/f", "d/p")} == {mode}


@pytest.mark.root
def test_what_a_setgid_directory_would_pass_on_is_not_passed_on(tmp_path: Path) -> None:
    """The kernel gives children of such a directory its group, and subdirectories the bit."""
    unpack([Dir("mail", mode=0o2775, gid=8), File("mail/f"), Dir("mail/d"), File("mail/implied/f")], tmp_path)

    nodes = snapshot(tmp_path)
    assert {nodes[path].owner for path in ("mail/f", "mail/d", "mail/implied")} == {(0, 0)}
    assert {nodes[path].mode for path in ("mail/d", "mail/implied")} == {0o755}


@pytest.mark.root
def test_a_default_acl_is_kept_and_not_passed_on(tmp_path: Path) -> None:
    """The archive says of each child what it has; inheriting would add to that."""
    entry = struct.Struct("<HHI")
    acl = struct.pack("<I", 2) + b"".join(
        entry.pack(tag, 7, 0xFFFFFFFF if owner is None else owner)
        for tag, owner in ((1, None), (2, 1000), (4, None), (0x10, None), (0x20, None))
    )
    name = "system.posix_acl_default"
    others = [Dir(f"o{number}") for number in range(100)]

    unpack([Dir("d", xattrs={name: acl}), File("d/f"), *others, File("d/g"), Dir("d/e")], tmp_path)

    nodes = snapshot(tmp_path)
    assert nodes["d"].xattrs == {name: acl}
    assert [nodes[path].xattrs for path in ("d/f", "d/g", "d/e")] == [{}, {}, {}]
    assert [nodes[path].mode for path in ("d/f", "d/g", "d/e")] == [0o644, 0o644, 0o755]


@pytest.mark.parametrize("entry", EVERY_TYPE, ids=lambda entry: entry.path)
@pytest.mark.root
def test_an_entry_replaces_one_of_every_type(entry: Entry, tmp_path: Path) -> None:
    """Every pair of types, the same name."""
    for number, first in enumerate(EVERY_TYPE):
        staging_dir = tmp_path / str(number)
        staging_dir.mkdir()
        at_x = [Entry(**{**vars(each), "path": "x"}) for each in (first, entry)]

        unpack(at_x, staging_dir)

        kinds = {"d": "directory", "f": "file", "s": "symlink", "c": "char", "b": "block", "p": "fifo"}
        assert snapshot(staging_dir)["x"].kind == kinds[entry.path.rstrip("/")]


def test_hard_links_share_a_file_and_ignore_their_own_attributes(tmp_path: Path) -> None:
    """Writers differ on what they put into a link's header."""
    unpack([File("a", b"1", mode=0o600), Hardlink("d/b", "a", mode=0o777), Hardlink("c", "/d/b")], tmp_path)

    nodes = snapshot(tmp_path)
    assert {nodes[path].links for path in ("a", "d/b", "c")} == {3}
    assert nodes["c"].mode == 0o600


def test_a_hard_link_to_a_symbolic_link_is_the_link(tmp_path: Path) -> None:
    """It never becomes a link to what that leads to."""
    unpack([Symlink("s", "/etc/passwd"), Hardlink("h", "s")], tmp_path)

    nodes = snapshot(tmp_path)
    assert (nodes["h"].kind, nodes["h"].content, nodes["h"].links) == ("symlink", "/etc/passwd", 2)


def test_a_hard_link_between_deep_directories_finds_both(tmp_path: Path) -> None:
    """Deeper than directories are kept open, so finding the target closes the link's own directory."""
    source, target = ("/".join([name] * 100) for name in "ab")

    unpack([File(f"{source}/f", b"1"), Hardlink(f"{target}/l", f"{source}/f")], tmp_path)

    assert snapshot(tmp_path)[f"{target}/l"].content == b"1"


@pytest.mark.root
def test_attributes_that_overlayfs_or_the_host_would_believe_are_dropped(tmp_path: Path) -> None:
    """A layer cannot forge an opaque directory, a redirect, or a label."""
    forged = {
        "trusted.overlay.opaque": b"y",
        "trusted.overlay.redirect": b"/etc",
        "trusted.overlay.metacopy": b"",
        "user.overlay.opaque": b"y",
        "user.overlay.whiteout": b"y",
        "security.selinux": b"system_u:object_r:shadow_t:s0\0",
        "user.kept": b"1",
    }

    unpack([Dir("d", xattrs=forged), File("f", xattrs=forged)], tmp_path)

    nodes = snapshot(tmp_path)
    assert nodes["d"].xattrs == nodes["f"].xattrs == {"user.kept": b"1"}


def test_a_directory_listed_twice_has_the_last_attributes_only(tmp_path: Path) -> None:
    """And what hides the layers below stays."""
    unpack(
        [
            Dir("d", mode=0o700, xattrs={"user.first": b"1"}),
            File("d/x", b"1"),
            Whiteout("d"),
            Dir("d", mode=0o755, mtime_ns=3, xattrs={"user.second": b"2"}),
        ],
        tmp_path,
    )

    node = snapshot(tmp_path)["d"]
    assert (node.mode, node.mtime_ns) == (0o755, 3)
    assert {name.rpartition(".")[2] for name in node.xattrs} == {"second", "opaque"}


def test_user_attributes_where_linux_has_none_are_dropped(tmp_path: Path) -> None:
    """Symbolic links and fifos cannot hold them; the rest of the entry counts."""
    unpack([Symlink("s", "x", xattrs={"user.a": b"1"}), Fifo("p", xattrs={"user.a": b"1"})], tmp_path)

    assert [snapshot(tmp_path)[path].xattrs for path in "sp"] == [{}, {}]


@pytest.mark.root
def test_an_attribute_larger_than_linux_takes_is_the_layer_s_fault(tmp_path: Path) -> None:
    """No filesystem holds more than 64 KiB in one."""
    with pytest.raises(InvalidLayer, match="extended attribute"):
        build([File("f", xattrs={"trusted.big": bytes(65_537)})], tmp_path, limits=limits(max_header_bytes=1 << 20))


@pytest.mark.root
def test_an_attribute_that_outgrows_ext4_is_no_full_disk(tmp_path: Path) -> None:
    """ext4 says "no space" for it, which a retry would never cure."""
    (tmp_path / "probe").touch()
    try:
        os.setxattr(tmp_path / "probe", "trusted.big", bytes(60_000))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    else:
        pytest.skip("this filesystem holds large attributes")

    with pytest.raises(InvalidLayer, match=r"cannot hold extended attribute trusted\.big"):
        build([File("f", xattrs={"trusted.big": bytes(60_000)})], tmp_path)


def test_an_invalid_capability_is_the_layer_s_fault(tmp_path: Path) -> None:
    """The kernel looks into this one."""
    if os.geteuid() != 0:
        pytest.skip("capabilities are dropped without root")
    with pytest.raises(InvalidLayer, match="'f': the filesystem finds an attribute"):
        build([File("f", xattrs={"security.capability": b"nonsense"})], tmp_path)


def test_large_files_come_out_whole_at_every_chunk_boundary(tmp_path: Path) -> None:
    """Data are handed on in the pieces they came in."""
    content = os.urandom(2_500_000)

    unpack([File("a", content[:511]), File("b", content), File("c", b""), File("d", content[: 1 << 20])], tmp_path)

    nodes = snapshot(tmp_path)
    assert [nodes[path].content for path in "abcd"] == [content[:511], content, b"", content[: 1 << 20]]


def test_sparse_files_of_gnu_tar_are_whole_with_their_holes(tmp_path: Path) -> None:
    """Every format GNU tar writes, from GNU tar itself."""
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        for number in range(60):
            file.seek(number * 65_536)
            file.write(bytes([number + 1]) * 5000)
        file.truncate(70 * 65_536)
    (source / "hole").touch()
    os.truncate(source / "hole", 1 << 20)
    expected = {path.name: path.read_bytes() for path in source.iterdir()}

    for number, choice in enumerate(
        (["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0")))
    ):
        archive = tmp_path / "archive.tar"
        subprocess.run(["tar", "-S", *choice, "-cf", archive, "-C", source, "sparse", "hole"], check=True)
        staging_dir = tmp_path / str(number)
        staging_dir.mkdir()

        unpack(archive.read_bytes(), staging_dir)

        nodes = snapshot(staging_dir)
        assert {name: nodes[name].content for name in expected} == expected, choice
        assert (staging_dir / "tree/sparse").stat().st_blocks * 512 < 70 * 65_536
        assert any(entry.extents for entry, _ in read_entries(archive.read_bytes()))
