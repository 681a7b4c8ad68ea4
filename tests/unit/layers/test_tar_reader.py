# SPDX-License-Identifier: Apache-2.0
"""The reader against Python's, against GNU tar, and on what writers of fifty years have left."""

import io
import os
import stat
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tar import BLOCK, File, Symlink, header, member_bytes, padded, pax_record, tar_bytes
from tests.unit.layers.harness import LIMITS, chunked, read_entries
from worker.layers.refusal import Excess, Refusal
from worker.layers.stream import ByteStream
from worker.layers.tar_entry import EntryType, Extent, TarEntry
from worker.layers.tar_reader import TarReader

END = bytes(2 * BLOCK)
TYPES = {
    tarfile.REGTYPE: EntryType.REGULAR,
    tarfile.LNKTYPE: EntryType.HARD_LINK,
    tarfile.SYMTYPE: EntryType.SYMLINK,
    tarfile.CHRTYPE: EntryType.CHARACTER_DEVICE,
    tarfile.BLKTYPE: EntryType.BLOCK_DEVICE,
    tarfile.DIRTYPE: EntryType.DIRECTORY,
    tarfile.FIFOTYPE: EntryType.FIFO,
}


def patched(block: bytes, offset: int, field: bytes) -> bytes:
    """Return a header with a field replaced and its checksum made right again."""
    changed = bytearray(block)
    changed[offset : offset + len(field)] = field
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed)
    return bytes(changed)


def pax(*records: bytes, typeflag: bytes = b"x") -> bytes:
    """Return an extended header."""
    body = b"".join(records)
    return header(b"PaxHeaders/0", typeflag=typeflag, size=len(body)) + padded(body)


def only(archive: bytes) -> TarEntry:
    """Return the one entry of an archive."""
    ((entry, _),) = read_entries(archive)
    return entry


def as_tarfile_sees(archive: bytes) -> list[tuple[object, ...]]:
    """Read an archive with Python's tarfile."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as reader:
        return [
            (
                member.name.encode("utf-8", "surrogateescape"),
                TYPES[member.type],
                member.mode,
                member.uid,
                member.gid,
                int(member.mtime),
                member.linkname.encode("utf-8", "surrogateescape"),
                reader.extractfile(member).read() if member.isreg() else b"",  # type: ignore[union-attr]
                member.offset_data if member.isreg() else None,
            )
            for member in reader
        ]


def as_we_see(archive: bytes, chunk_bytes: int) -> list[tuple[object, ...]]:
    """Read an archive with our reader, in the same form."""
    return [
        (
            entry.name.rstrip(b"/"),
            entry.type,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime_ns // 10**9,
            entry.linkname,
            data,
            entry.data_offset if entry.type is EntryType.REGULAR else None,
        )
        for entry, data in read_entries(archive, chunk_bytes=chunk_bytes)
    ]


PATHS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=150).map(
    lambda text: "x" + text.rstrip("/")
)
MEMBERS = st.builds(
    lambda **fields: fields,
    name=PATHS,
    type=st.sampled_from(list(TYPES)),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**21),
    mtime=st.integers(0, 2**34),
    linkname=PATHS,
    content=st.binary(max_size=2000),
)


@settings(max_examples=150, deadline=None)
@given(
    members=st.lists(MEMBERS, max_size=5),
    tar_format=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    chunk_bytes=st.sampled_from([1, 100, 511, 512, 513, 4096, 1 << 20]),
)
def test_every_archive_of_tarfile_s_is_read_as_tarfile_reads_it(
    members: list[dict[str, object]], tar_format: int, chunk_bytes: int
) -> None:
    """PAX and GNU, every type, long names, large owners, however the bytes are cut."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format, encoding="utf-8") as writer:
        for fields in members:
            member = tarfile.TarInfo()
            is_link = fields["type"] in (tarfile.LNKTYPE, tarfile.SYMTYPE)
            for name in ("name", "type", "mode", "uid", "gid", "mtime", *(["linkname"] if is_link else [])):
                setattr(member, name, fields[name])
            content = fields["content"] if fields["type"] == tarfile.REGTYPE else b""
            member.size = len(content)  # type: ignore[arg-type]
            writer.addfile(member, io.BytesIO(content) if content else None)  # type: ignore[arg-type]

    assert as_we_see(buffer.getvalue(), chunk_bytes) == as_tarfile_sees(buffer.getvalue())


@pytest.mark.parametrize("tar_format", ["v7", "ustar", "gnu", "oldgnu", "pax"])
def test_every_format_of_gnu_tar_is_read(tar_format: str, tmp_path: Path) -> None:
    """From the program itself, with what each format can hold."""
    source = tmp_path / "source"
    name = "n" * 90
    (source / name).mkdir(parents=True)
    (source / name / "file").write_bytes(b"content")
    (source / "link").symlink_to("target")
    os.link(source / name / "file", source / "hard")
    os.mkfifo(source / "pipe")
    os.utime(source / "link", ns=(0, 1_234_567_890_123_456_789), follow_symlinks=False)
    skipped = ["--exclude=pipe"] if tar_format == "v7" else []

    archive = subprocess.run(
        ["tar", f"--format={tar_format}", *skipped, "-c", "-C", source, "--sort=name", "."],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout

    entries = {entry.name.removeprefix(b"./").rstrip(b"/").decode(): entry for entry, _ in read_entries(archive)}
    assert set(entries) == {"", "hard", "link", name, f"{name}/file", *([] if skipped else ["pipe"])}
    assert {entries["hard"].type, entries[f"{name}/file"].type} == {EntryType.REGULAR, EntryType.HARD_LINK}
    assert entries[name].type is EntryType.DIRECTORY
    assert entries[name].mode == stat.S_IMODE((source / name).stat().st_mode)
    assert entries["link"].linkname == b"target"
    assert entries["link"].mtime_ns == (1_234_567_890_123_456_789 if tar_format == "pax" else 1_234_567_890 * 10**9)


def test_a_pax_size_is_followed_whatever_the_header_says() -> None:
    """CVE-2025-62518: whoever believes the header finds other entries inside the data."""
    hidden = member_bytes(File("smuggled", b"evil"))
    size = pax_record("size", str(len(hidden)).encode())

    entries = read_entries(
        pax(size) + header(b"outer", typeflag=b"0", size=0) + hidden + member_bytes(File("next")) + END
    )

    assert [(entry.name, data) for entry, data in entries] == [(b"outer", hidden), (b"next", b"")]


def test_the_size_of_what_has_no_data_is_ignored() -> None:
    """As Go's reader does: a link's size is its target's in many archives, and no data follow."""
    archive = b"".join(
        header(name, typeflag=flag, size=4096, linkname=b"t")
        for name, flag in ((b"hard", b"1"), (b"soft", b"2"), (b"dir", b"5"), (b"fifo", b"6"))
    )

    entries = read_entries(archive + member_bytes(File("next", b"x")) + END)

    assert [(entry.size_bytes, data) for entry, data in entries] == [(0, b"")] * 4 + [(1, b"x")]


PRESENT = {
    "V7 regular file": (patched(header(b"f", typeflag=b"\0"), 257, bytes(8)), EntryType.REGULAR, b"f"),
    "V7 directory": (patched(header(b"d/", typeflag=b"\0"), 257, bytes(8)), EntryType.DIRECTORY, b"d/"),
    "V7 has no prefix": (
        patched(patched(header(b"f", typeflag=b"0"), 257, bytes(8)), 345, b"prefix"),
        EntryType.REGULAR,
        b"f",
    ),
    "ustar prefix": (patched(header(b"f", typeflag=b"0"), 345, b"some/dir"), EntryType.REGULAR, b"some/dir/f"),
    "ustar prefix of 155 bytes": (
        patched(header(b"f", typeflag=b"0"), 345, b"p" * 155),
        EntryType.REGULAR,
        b"p" * 155 + b"/f",
    ),
    "GNU keeps times where the prefix is": (
        patched(patched(header(b"f", typeflag=b"0"), 257, b"ustar  \0"), 345, b"12345670123\0"),
        EntryType.REGULAR,
        b"f",
    ),
    "star's prefix is shorter": (
        patched(patched(header(b"f", typeflag=b"0"), 345, b"p" * 131 + b"00000000000 "), 508, b"tar\0"),
        EntryType.REGULAR,
        b"p" * 131 + b"/f",
    ),
    "name of 100 bytes without NUL": (header(b"n" * 100, typeflag=b"0"), EntryType.REGULAR, b"n" * 100),
    "contiguous file": (header(b"f", typeflag=b"7"), EntryType.REGULAR, b"f"),
    "a regular file's slash is no directory": (header(b"f/", typeflag=b"0"), EntryType.REGULAR, b"f/"),
    "a long name's slash makes a V7 directory": (
        header(b"L", typeflag=b"L", size=3) + padded(b"d/\0") + header(b"f", typeflag=b"\0"),
        EntryType.DIRECTORY,
        b"d/",
    ),
    "a V7 slash that the long name takes away": (
        header(b"L", typeflag=b"L", size=2) + padded(b"f\0") + header(b"d/", typeflag=b"\0"),
        EntryType.REGULAR,
        b"f",
    ),
    "numbers with blanks": (patched(header(b"f", typeflag=b"0"), 100, b"   644 \0"), EntryType.REGULAR, b"f"),
    "a number before its NUL": (patched(header(b"f", typeflag=b"0"), 100, b"644\0zzzz"), EntryType.REGULAR, b"f"),
    "both long names the same": (
        header(b"L", typeflag=b"L", size=2)
        + padded(b"n\0")
        + pax(pax_record("path", b"n"))
        + header(b"f", typeflag=b"0"),
        EntryType.REGULAR,
        b"n",
    ),
}


@pytest.mark.parametrize(("archive", "entry_type", "name"), PRESENT.values(), ids=PRESENT)
def test_dialects_are_understood(archive: bytes, entry_type: EntryType, name: bytes) -> None:
    """V7, ustar, GNU and star, as Go's reader takes them."""
    entry = only(archive + END)

    assert (entry.type, entry.name) == (entry_type, name)


def test_a_checksum_of_signed_bytes_is_accepted() -> None:
    """Some old writers summed chars."""
    block = bytearray(header(b"caf\xe9", typeflag=b"0"))
    total = sum(block) - sum(block[148:156]) + 8 * 32 - 256
    block[148:156] = b"%06o\0 " % total

    assert only(bytes(block) + END).name == b"caf\xe9"


NUMBERS = {
    b"\x80" + bytes(10) + b"\x07": 7,
    b"\x80" + bytes(6) + (2**33).to_bytes(5, "big"): 2**33,
    b"\xff" * 12: -1,
    b"\xff" * 11 + b"\x00": -256,
}


@pytest.mark.parametrize(("field", "seconds"), NUMBERS.items())
def test_base_256_times_are_read_with_their_sign(field: bytes, seconds: int) -> None:
    """GNU tar writes what octal cannot hold this way."""
    assert only(patched(header(b"f", typeflag=b"0"), 136, field) + END).mtime_ns == seconds * 10**9


TIMES = {
    b"0": 0,
    b"1.5": 1_500_000_000,
    b"1700000000.123456789": 1_700_000_000_123_456_789,
    b"1700000000.1234567891": 1_700_000_000_123_456_789,
    b"1700000000.": 1_700_000_000_000_000_000,
    b"-0.5": -500_000_000,
    b"-1.000000001": -1_000_000_001,
    b"9007199254740993.000000001": 9_007_199_254_740_993_000_000_001,
}


@pytest.mark.parametrize(("text", "nanoseconds"), TIMES.items())
def test_pax_times_never_pass_through_a_float(text: bytes, nanoseconds: int) -> None:
    """Every digit down to the nanosecond; what is finer is dropped."""
    assert only(pax(pax_record("mtime", text)) + header(b"f", typeflag=b"0") + END).mtime_ns == nanoseconds


def test_global_records_hold_until_others_replace_them() -> None:
    """An entry's own records go first; an empty one takes the global one back."""
    archive = (
        pax(pax_record("uid", b"7"), pax_record("mtime", b"5"), pax_record("comment", b"x"), typeflag=b"g")
        + header(b"a", typeflag=b"0", ids=(1, 1))
        + pax(pax_record("uid", b"8"))
        + header(b"b", typeflag=b"0", ids=(1, 1))
        + pax(pax_record("uid", b""))
        + header(b"c", typeflag=b"0", ids=(1, 1))
        + pax(pax_record("uid", b"9"), typeflag=b"g")
        + header(b"d", typeflag=b"0", ids=(1, 1))
        + END
    )

    entries = [entry for entry, _ in read_entries(archive)]

    assert [entry.uid for entry in entries] == [7, 8, 1, 9]
    assert {entry.mtime_ns for entry in entries} == {5 * 10**9}


def test_extended_attributes_come_in_two_spellings() -> None:
    """SCHILY's is binary, libarchive's is base64 under an escaped name; the former goes first."""
    archive = pax(
        pax_record("LIBARCHIVE.xattr.user.percent%20name", b"AAH/"),
        pax_record("LIBARCHIVE.xattr.user.both", b"Zmlyc3Q"),
        pax_record("SCHILY.xattr.user.both", b"a=\n\0b"),
        pax_record("SCHILY.xattr.user.empty", b""),
    )

    entry = only(archive + header(b"f", typeflag=b"0") + END)

    assert entry.xattrs == {b"user.percent name": b"\0\1\xff", b"user.both": b"a=\n\0b", b"user.empty": b""}


def test_data_that_nobody_takes_are_passed_over_and_offsets_stay_right() -> None:
    """An index over the kept tar needs no data, only where they are."""
    tar = tar_bytes([File("a", b"1" * 1000), Symlink("s" * 120, "t"), File("b", b"2" * 513), File("c", b"3")])
    reader = TarReader(ByteStream(chunked(tar, 100)), LIMITS)

    found = {}
    for entry in reader:
        if entry.name == b"b":
            next(reader.data())
        if entry.type is EntryType.REGULAR:
            found[entry.name] = tar[entry.data_offset : entry.data_offset + entry.data_bytes]

    assert found == {b"a": b"1" * 1000, b"b": b"2" * 513, b"c": b"3"}


def test_a_sparse_entry_says_where_its_data_are_and_belong() -> None:
    """Format 1.0 keeps its map before the data, inside the member."""
    data = padded(b"2\n1000\n3\n5000\n4\n") + b"abcdefg"
    archive = (
        pax(
            pax_record("GNU.sparse.major", b"1"),
            pax_record("GNU.sparse.minor", b"0"),
            pax_record("GNU.sparse.name", b"real/name"),
            pax_record("GNU.sparse.realsize", b"9000"),
        )
        + header(b"GNUSparseFile.0/name", typeflag=b"0", size=len(data))
        + padded(data)
        + END
    )

    ((entry, stored),) = read_entries(archive)

    assert (entry.name, entry.size_bytes, stored) == (b"real/name", 9000, b"abcdefg")
    assert entry.extents == (Extent(1000, 3), Extent(5000, 4))
    assert archive[entry.data_offset : entry.data_offset + entry.data_bytes] == b"abcdefg"


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_archive_is_refused_or_read_but_never_anything_else(data: st.DataObject) -> None:
    """Whatever bytes change: an answer, not a crash."""
    archive = bytearray(
        tar_bytes([File("a" * 150, b"x" * 700, mtime_ns=5, xattrs={"user.a": b"b"}), Symlink("l", "t")])
    )
    for _ in range(data.draw(st.integers(1, 4))):
        block = data.draw(st.integers(0, len(archive) // BLOCK - 1)) * BLOCK
        archive[block + data.draw(st.integers(0, BLOCK - 1))] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):
            header_bytes = bytes(archive[block : block + BLOCK])
            archive[block : block + BLOCK] = patched(header_bytes, 0, b"")

    with suppress(Refusal, Excess):
        read_entries(bytes(archive[: data.draw(st.integers(0, len(archive)))]))
