# SPDX-License-Identifier: Apache-2.0
"""Where the members of a tar file lie, found without reading what is in them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.tar import CharDevice, Dir, Entry, Fifo, File, Hardlink, Symlink, tar_bytes
from worker.errors import InvalidImage
from worker.pullers.members import ArchiveContent, Member, index_members


@contextmanager
def opened(path: Path, content: bytes) -> Iterator[int]:
    """Write a file and give its descriptor."""
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def index(path: Path, entries: Sequence[Entry]) -> dict[str, Member]:
    """Return the members of an archive of `entries`."""
    with opened(path, tar_bytes(entries)) as descriptor:
        return index_members(descriptor, image="i", max_header_bytes=4096)


def test_members_are_found_by_path_whatever_way_it_is_written(tmp_path: Path) -> None:
    """`./a` is `a`; long names and names beyond ASCII come from extended headers."""
    long_name = "d/" + "x" * 200
    entries = [
        Dir("d"),
        File("./d/a", b"content"),
        File(long_name, b"1"),
        File("d/ü", b"2"),
        Fifo("f"),
        CharDevice("c", 1, 3),
    ]

    assert sorted(index(tmp_path / "a.tar", entries)) == sorted(["d/a", long_name, "d/ü"])


def test_links_name_their_member(tmp_path: Path) -> None:
    """A symbolic link is relative to its place, a hard link to the archive; neither leaves it."""
    entries = [
        Symlink("d/l", "../b"),
        Symlink("d/up", "../../../../b"),
        Symlink("d/abs", "/b"),
        Hardlink("d/h", "b"),
        File("b"),
    ]

    members = index(tmp_path / "a.tar", entries)

    assert {members[path].target for path in ("d/l", "d/up", "d/abs", "d/h")} == {"b"}


def test_contents_are_read_through_links_and_from_any_offset(tmp_path: Path) -> None:
    """An extent is exactly the member's bytes, without padding."""
    entries = [File("a", b"A" * 700), File("b", b"B" * 512), Symlink("l1", "l2"), Symlink("l2", "a"), File("empty")]

    with opened(tmp_path / "a.tar", tar_bytes(entries)) as descriptor:
        members = index_members(descriptor, image="i", max_header_bytes=4096)
        content = ArchiveContent(descriptor, members, image="i", max_document_bytes=1000)
        assert content.read_document("l1") == b"A" * 700
        assert content.read_document("b") == b"B" * 512
        assert content.read_document("empty") == b""
        with content.open("a") as extent:
            assert extent.read(690, 100) == b"A" * 10
            assert extent.read(5000, 100) == b""


def test_contents_are_passed_over_without_reading(tmp_path: Path) -> None:
    """A terabyte in a sparse file is indexed at once: only headers are read."""
    path = tmp_path / "huge.tar"
    huge = File("huge")
    header = bytearray(tar_bytes([huge])[:512])
    header[124:136] = (1 << 40 | 0x80 << 88).to_bytes(12, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with path.open("wb") as file:
        file.write(header)
        file.seek(512 + (1 << 40))
        file.write(tar_bytes([File("after", b"found")]))

    descriptor = os.open(path, os.O_RDONLY)
    try:
        members = index_members(descriptor, image="i", max_header_bytes=4096)
    finally:
        os.close(descriptor)

    assert members["huge"].size_bytes == 1 << 40
    assert members["after"].offset == 512 + (1 << 40) + 512


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tar_bytes([File("a"), File("./a")]), "two files of this name"),
        (tar_bytes([File("a", bytes(5000))])[:3000], "cut off"),
        (tar_bytes([File("a" * 5000)]), "extended header"),
        (b"\1" * 512, "refused"),
    ],
)
def test_a_malformed_archive_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """Refusals are about the image, in one sentence."""
    with opened(tmp_path / "a.tar", content) as descriptor, pytest.raises(InvalidImage, match=reason):
        index_members(descriptor, image="i", max_header_bytes=4096)
