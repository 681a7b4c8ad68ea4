# SPDX-License-Identifier: Apache-2.0
"""The fence excludes by flock and refuses by token."""

from pathlib import Path

import pytest

from worker.errors import LeaseLost, LockTimeout
from worker.paths import StorePaths
from worker.store.fence import Fence


@pytest.fixture
def fence(tmp_path: Path) -> Fence:
    """A fence of an empty store."""
    return Fence(StorePaths(tmp_path))


def test_readers_share_and_a_writer_waits_for_them(fence: Fence) -> None:
    """An exclusive holder never overlaps a shared one."""
    with fence.shared(token=1), fence.shared(token=1):
        with pytest.raises(LockTimeout), fence.exclusive(token=2, timeout_seconds=0):
            pass

    with fence.exclusive(token=2, timeout_seconds=0):
        with pytest.raises(LockTimeout), fence.shared(token=2, timeout_seconds=0):
            pass


def test_a_reader_older_than_a_writer_that_was_here_is_refused(fence: Fence) -> None:
    """Its lease has lapsed: the writer could not have been granted otherwise."""
    with fence.exclusive(token=8):
        pass

    with pytest.raises(LeaseLost, match="token 7"), fence.shared(token=7):
        pass

    with fence.shared(token=8):
        pass


def test_a_writer_older_than_any_reader_that_was_here_is_refused(fence: Fence) -> None:
    """A writer that was paused between grant and act comes too late."""
    with fence.shared(token=9):
        pass

    with pytest.raises(LeaseLost, match="token 8"), fence.exclusive(token=8):
        pass


def test_an_older_reader_is_no_harm_to_younger_ones(fence: Fence) -> None:
    """Readers overtake each other freely, and the highest token stays known."""
    with fence.shared(token=9):
        pass

    with fence.shared(token=5):
        pass

    assert fence.highest_token() == 9


def test_a_new_store_has_seen_no_token(fence: Fence) -> None:
    """Zero means that any token may be granted."""
    assert fence.highest_token() == 0


def test_a_token_file_cut_short_counts_as_new(fence: Fence, tmp_path: Path) -> None:
    """A crash during its very first write does not lock the store for ever."""
    (tmp_path / "token").write_bytes(b"abc")

    with fence.exclusive(token=1):
        pass

    assert fence.highest_token() == 1
