# SPDX-License-Identifier: Apache-2.0
"""A tree looked into as if it were the root directory."""

import errno
import os
from pathlib import Path

import pytest

from tests.support.descriptors import open_below
from worker.linux import openat2
from worker.linux.inside import opened_inside, read_file_inside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with links in and out."""
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_bytes(b"inside")
    (root / "file").write_bytes(b"at the top")
    (root / "in").symlink_to("/a/b")
    (root / "out").symlink_to("../../../file")
    (tmp_path / "file").write_bytes(b"outside")
    return root


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("a/b/file", b"inside"),
        ("/a/b/file", b"inside"),
        ("/in/file", b"inside"),
        ("/out", b"at the top"),
        ("../../file", b"at the top"),
        ("a/../../file", b"at the top"),
        ("missing", None),
        ("file/below", None),
    ],
)
def test_reads_what_is_inside(root: Path, path: str, content: bytes | None) -> None:
    """Links and `..` end at the root."""
    assert read_file_inside(root, path, max_bytes=100) == content


def test_reads_only_so_much(root: Path) -> None:
    """A larger file is an error, not half of one."""
    assert read_file_inside(root, "file", max_bytes=10) == b"at the top"
    with pytest.raises(OSError, match="more than 9 bytes") as raised:
        read_file_inside(root, "file", max_bytes=9)
    assert raised.value.errno == errno.EFBIG


def test_a_directory_is_no_file(root: Path) -> None:
    """It can be opened as a place, though."""
    with pytest.raises(OSError, match="not a regular file"):
        read_file_inside(root, "a", max_bytes=9)
    with opened_inside(root, "in") as place:
        assert place is not None
        assert os.path.samestat(os.fstat(place), (root / "a" / "b").stat())


def test_no_descriptor_is_left(root: Path) -> None:
    """Whichever way it ends."""
    for path in ("file", "missing", "a", "in/file"):
        try:
            read_file_inside(root, path, max_bytes=3)
        except OSError:
            continue

    assert open_below(root) == []


@pytest.fixture
def _old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without openat2, or a sandbox that denies it so."""
    monkeypatch.setattr(openat2.libc, "SYS_OPENAT2", 1_000_000)


@pytest.mark.usefixtures("_old_kernel")
def test_an_old_kernel_follows_no_link(root: Path) -> None:
    """Neither at the end nor on the way: refused instead of guessed."""
    assert read_file_inside(root, "/a/b/file", max_bytes=100) == b"inside"
    assert read_file_inside(root, "missing", max_bytes=100) is None
    assert read_file_inside(root, "in/file", max_bytes=100) is None
    with pytest.raises(OSError, match="not a regular file"):
        read_file_inside(root, "out", max_bytes=100)
    with pytest.raises(OSError, match="Too many levels"):
        read_file_inside(root, "../file", max_bytes=100)
    with opened_inside(root, "/") as place:
        assert place is not None
        assert os.path.samestat(os.fstat(place), root.stat())
