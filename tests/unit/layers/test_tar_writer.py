# SPDX-License-Identifier: Apache-2.0
"""What is written is what is read."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.layers.limits import LayerLimits
from worker.layers.stream import ByteStream
from worker.layers.tar_entry import EntryType, Extent, TarEntry
from worker.layers.tar_reader import TarReader
from worker.layers.tar_writer import END_MARK, member_head, padding

LIMITS = LayerLimits(max_layer_bytes=1 << 50, max_entries=100, max_header_bytes=1 << 20)
LINKS = (EntryType.SYMLINK, EntryType.HARD_LINK)
DEVICES = (EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE)
NAMES = st.binary(min_size=1, max_size=300).map(lambda name: name.replace(b"\0", b"x"))
XATTR_NAMES = st.binary(min_size=1, max_size=40).map(lambda name: name.replace(b"\0", b"x"))


def make_entry(**more: object) -> TarEntry:
    """Return a small file's entry."""
    plain = {
        "name": b"a",
        "type": EntryType.REGULAR,
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "mtime_ns": 0,
        "size_bytes": 0,
        "linkname": b"",
        "device": (0, 0),
        "xattrs": {},
        "data_offset": 0,
        "data_bytes": 0,
        "extents": None,
    }
    return TarEntry(**{**plain, **more})  # type: ignore[arg-type]


@st.composite
def entries(draw: st.DrawFn) -> tuple[TarEntry, bytes]:
    """Entries of all types with all they can say, and their data."""
    kind = draw(st.sampled_from(EntryType))
    entry = make_entry(
        name=draw(NAMES),
        type=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 2**32 - 2)),
        gid=draw(st.integers(0, 2**32 - 2)),
        mtime_ns=draw(st.integers(-(2**62), 2**62) | st.integers(0, 2**31).map(lambda seconds: seconds * 10**9)),
        linkname=draw(NAMES) if kind in LINKS else b"",
        device=draw(st.tuples(st.integers(0, 2**12 - 1), st.integers(0, 2**20 - 1))) if kind in DEVICES else (0, 0),
        xattrs=draw(st.dictionaries(XATTR_NAMES, st.binary(max_size=50), max_size=3)),
    )
    if kind is not EntryType.REGULAR:
        return entry, b""
    data = draw(st.binary(max_size=1500))
    if data and draw(st.booleans()):
        hole = draw(st.integers(1, 10**9))
        extents = (Extent(hole, len(data)),)
        return entry._replace(size_bytes=hole + len(data) + 5, data_bytes=len(data), extents=extents), data
    return entry._replace(size_bytes=len(data), data_bytes=len(data)), data


@given(st.lists(entries(), max_size=4))
def test_the_reader_reads_what_was_written(members: list[tuple[TarEntry, bytes]]) -> None:
    """Every entry of every type, whatever its names, numbers and times; written again it is the same bytes."""
    tar = b"".join(member_head(entry) + data + padding(len(data)) for entry, data in members) + END_MARK
    reader = TarReader(ByteStream(iter([tar])), LIMITS)

    read = [(entry, b"".join(reader.data())) for entry in reader]

    assert [(entry._replace(data_offset=0), data) for entry, data in read] == members
    assert b"".join(member_head(entry) + data + padding(len(data)) for entry, data in read) + END_MARK == tar


@pytest.mark.parametrize("size", [8**11 - 1, 8**11, 2**40])
def test_a_size_beyond_ustar_is_said_by_pax(size: int) -> None:
    """Eight gibibytes and more."""
    head = member_head(make_entry(size_bytes=size, data_bytes=size))

    entry = next(iter(TarReader(ByteStream(iter([head])), LIMITS)))

    assert entry.data_bytes == size


def test_a_record_counts_its_own_digits() -> None:
    """Where its length grows by a digit, too."""
    for length in range(80, 1100):
        head = member_head(make_entry(name=b"n" * length))

        assert next(iter(TarReader(ByteStream(iter([head])), LIMITS))).name == b"n" * length


def test_pythons_reader_agrees() -> None:
    """A reader that is not ours sees the same names, owners, times and content."""
    entry = make_entry(
        name=b"d/" * 60 + b"f", uid=10**8, mtime_ns=1_700_000_000_500_000_000, size_bytes=3, data_bytes=3
    )
    tar = member_head(entry) + b"abc" + padding(3) + END_MARK

    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        [member] = archive.getmembers()
        content = archive.extractfile(member)
        assert content is not None
        assert content.read() == b"abc"
    assert (member.name, member.uid, member.mtime) == ("d/" * 60 + "f", 10**8, 1_700_000_000.5)
