# SPDX-License-Identifier: Apache-2.0
"""Bytes and holes arrive, whichever way they take."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.needs import missing_programs
from worker.linux import copying
from worker.linux.copying import copy_content
from worker.linux.mount import Mount, mount_filesystem, unmount_tree
from worker.linux.statfs import knows_filesystem

DATA = os.urandom(3_000_000)
CONTENTS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.touch(),
    "small": lambda path: path.write_bytes(b"x"),
    "large": lambda path: path.write_bytes(DATA),
    "only a hole": lambda path: _sparse(path, {}),
    "data, hole": lambda path: _sparse(path, {0: b"start"}),
    "hole, data, hole": lambda path: _sparse(path, {8 << 20: DATA}),
    "hole, data": lambda path: _sparse(path, {(16 << 20) - 3: b"end"}),
}


def _sparse(path: Path, pieces: dict[int, bytes]) -> None:
    with path.open("wb") as file:
        file.truncate(16 << 20)
        for offset, piece in pieces.items():
            file.seek(offset)
            file.write(piece)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as old, target.open("wb") as new:
        copy_content(old.fileno(), new.fileno(), os.fstat(old.fileno()))


@pytest.mark.parametrize("content", CONTENTS)
def test_copies_within_a_filesystem(tmp_path: Path, content: str) -> None:
    """The bytes are equal, and the copy takes no more room."""
    CONTENTS[content](tmp_path / "source")

    _copy(tmp_path / "source", tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()
    assert (tmp_path / "target").stat().st_blocks <= (tmp_path / "source").stat().st_blocks


@pytest.mark.root
@pytest.mark.parametrize("content", CONTENTS)
def test_copies_between_filesystems(tmp_path: Path, content: str) -> None:
    """Where neither clone nor copy_file_range may be possible."""
    (tmp_path / "other").mkdir()
    mount_filesystem(Mount(fs_type="tmpfs", source="tmpfs", target=tmp_path / "other"))
    CONTENTS[content](tmp_path / "source")

    _copy(tmp_path / "source", tmp_path / "other" / "target")
    copied = (tmp_path / "other" / "target").read_bytes()
    blocks = (tmp_path / "other" / "target").stat().st_blocks
    unmount_tree(tmp_path)

    assert copied == (tmp_path / "source").read_bytes()
    assert blocks <= (tmp_path / "source").stat().st_blocks


def test_copies_by_hand(tmp_path: Path) -> None:
    """The last resort; white-box, since the kernel here does better. A range in the middle leaves the rest alone."""
    (tmp_path / "source").write_bytes(DATA)

    with (tmp_path / "source").open("rb") as old, (tmp_path / "target").open("wb") as new:
        copying._copy_by_hand(old.fileno(), new.fileno(), 1000, len(DATA) - 1000)

    assert (tmp_path / "target").read_bytes() == bytes(1000) + DATA[1000:-1000]


def test_shortened_file_is_an_error(tmp_path: Path) -> None:
    """A layer that lost bytes is not copied as if it were whole."""
    (tmp_path / "source").write_bytes(DATA)
    with (tmp_path / "source").open("r+b") as old, (tmp_path / "target").open("wb") as new:
        status = os.fstat(old.fileno())
        old.truncate(1000)

        with pytest.raises(OSError, match="shorter than its size"):
            copy_content(old.fileno(), new.fileno(), status)


@pytest.mark.root
def test_shares_blocks_where_the_filesystem_can(tmp_path: Path) -> None:
    """On Btrfs a copy of many megabytes takes next to no room, and is one call."""
    if missing := missing_programs("mkfs.btrfs"):
        pytest.skip(missing)
    if not knows_filesystem("btrfs"):
        pytest.skip("the kernel has no btrfs")
    image, target = tmp_path / "image", tmp_path / "target"
    target.mkdir()
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, target], check=True)
    (target / "source").write_bytes(DATA)
    os.sync()
    before = os.statvfs(target).f_bfree

    _copy(target / "source", target / "copy")
    with (target / "source").open("rb") as old, (target / "clone").open("wb") as new:
        is_cloned = copying.cloned(old.fileno(), new.fileno())
    is_equal = (target / "copy").read_bytes() == DATA
    os.sync()
    taken = before - os.statvfs(target).f_bfree
    unmount_tree(target)

    assert is_equal
    assert is_cloned
    assert taken * 4096 < len(DATA) // 4
