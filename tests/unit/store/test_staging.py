# SPDX-License-Identifier: Apache-2.0
"""Staging directories belong to a living maker or to nobody."""

import os
import signal
from pathlib import Path

import pytest

from worker.store.staging import staging, sweep_staging


def test_what_is_not_moved_out_is_deleted(tmp_path: Path) -> None:
    """Neither an error nor a success leaves anything."""
    with pytest.raises(RuntimeError), staging(tmp_path / "s") as directory:
        (directory / "file").write_text("x")
        raise RuntimeError

    assert list(tmp_path.iterdir()) == []


def test_the_next_maker_waits_and_may_give_up(tmp_path: Path) -> None:
    """`check` is called while somebody else fills the directory, and ends the wait by raising."""

    def give_up() -> None:
        raise InterruptedError

    with staging(tmp_path / "s"), pytest.raises(InterruptedError), staging(tmp_path / "s", check=give_up):
        pass


def test_a_sweep_removes_what_a_killed_maker_left_and_nothing_else(tmp_path: Path) -> None:
    """The kernel lets go of a dead maker's flock; a living one's directory stays."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with staging(tmp_path / "dead") as directory:
            (directory / "half").write_text("x")
            os.write(writer, b"x")
            signal.pause()
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    assert sweep_staging(tmp_path) == 0
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    with staging(tmp_path / "alive") as directory:
        swept = sweep_staging(tmp_path)

        assert swept == 1
        assert directory.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_leftover_is_not_mistaken_for_a_finished_one(tmp_path: Path) -> None:
    """The next maker begins with an empty directory."""
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "half").write_text("x")

    with staging(tmp_path / "s") as directory:
        assert list(directory.iterdir()) == []
