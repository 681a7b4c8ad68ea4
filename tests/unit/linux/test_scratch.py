# SPDX-License-Identifier: Apache-2.0
"""A place to try something in, gone afterwards and after a crash."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.chaos.pausing import paused_at
from tests.support.mounts import mounts_below
from worker.linux.scratch import scratch_dir


def test_it_is_empty_at_first_and_gone_at_last(tmp_path: Path) -> None:
    """With all that was put there, also after an error."""
    with pytest.raises(ZeroDivisionError), scratch_dir(tmp_path) as scratch:
        assert list(scratch.iterdir()) == []
        (scratch / "directory").mkdir()
        raise ZeroDivisionError

    assert list(tmp_path.iterdir()) == []


def test_users_do_not_disturb_each_other(tmp_path: Path) -> None:
    """One that comes later leaves the living alone."""
    with scratch_dir(tmp_path) as first:
        (first / "mine").touch()
        with scratch_dir(tmp_path) as second:
            assert second != first
        assert (first / "mine").exists()


@pytest.mark.root
def test_what_a_killed_user_left_is_unmounted_and_deleted_by_the_next(tmp_path: Path) -> None:
    """Its flock is free."""

    def die() -> None:
        with scratch_dir(tmp_path) as scratch:
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", scratch], check=True)
            os.kill(os.getpid(), 9)

    assert paused_at(10**9, die) is None
    assert len(mounts_below(tmp_path)) == 1

    with scratch_dir(tmp_path):
        assert mounts_below(tmp_path) == []

    assert list(tmp_path.iterdir()) == []
