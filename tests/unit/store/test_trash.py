# SPDX-License-Identifier: Apache-2.0
"""Trash: out of sight at once, deleted later, safely."""

from pathlib import Path

import pytest

from worker.errors import RemovalFailed
from worker.store.trash import discard, empty_trash


def test_the_same_name_can_be_discarded_again_and_again(tmp_path: Path) -> None:
    """Nothing in the trash is in the way."""
    trash_dir = tmp_path / "trash"
    trash_dir.mkdir()

    for _ in range(2):
        (tmp_path / "layer").mkdir()
        assert discard(tmp_path / "layer", trash_dir)

    assert not discard(tmp_path / "layer", trash_dir)
    assert len(list(trash_dir.iterdir())) == 2


def test_emptying_reports_bytes_and_follows_no_symlink(tmp_path: Path) -> None:
    """What a layer's symlink points at stays."""
    trash_dir, precious = tmp_path / "trash", tmp_path / "precious"
    trash_dir.mkdir()
    precious.mkdir()
    (precious / "file").write_text("keep")
    (tmp_path / "layer").mkdir()
    (tmp_path / "layer" / "big").write_bytes(b"x" * 10_000)
    (tmp_path / "layer" / "link").symlink_to(precious)
    discard(tmp_path / "layer", trash_dir)

    freed = empty_trash(trash_dir)

    assert freed >= 10_000
    assert (precious / "file").read_text() == "keep"
    assert list(trash_dir.iterdir()) == []


def test_a_refusal_of_the_filesystem_names_what_stays(tmp_path: Path) -> None:
    """A trash on another filesystem, a broken disk: transient, since somebody may mend it."""
    (tmp_path / "layer").mkdir()
    (tmp_path / "trash").write_text("no directory")

    with pytest.raises(RemovalFailed, match="layer is not fully removed: Not a directory"):
        discard(tmp_path / "layer", tmp_path / "trash")

    assert (tmp_path / "layer").is_dir()
