# SPDX-License-Identifier: Apache-2.0
"""A probe has the place to itself and leaves no trace."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from worker.backends.probe import probe_dir, probe_lower_dir, shares_blocks
from worker.errors import StorageExhausted
from worker.linux.flock import try_lock
from worker.linux.mount import Mount, Option, mount_filesystem, unmount_tree
from worker.linux.mountinfo import mounts_at_or_below


def test_place_is_empty_and_gone_afterwards(tmp_path: Path) -> None:
    """Also after an exception."""

    def probe() -> None:
        with probe_dir(tmp_path) as place, probe_lower_dir(tmp_path) as lower:
            assert list(place.iterdir()) == list(lower.iterdir()) == []
            (place / "d").mkdir()
            (lower / "f").touch()
            raise KeyError

    with pytest.raises(KeyError):
        probe()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_what_a_killed_prober_left_is_cleared(tmp_path: Path) -> None:
    """Its files and its mounts."""
    (tmp_path / ".probe" / "rootfs").mkdir(parents=True)
    (tmp_path / ".probe" / "file").touch()
    mount_filesystem(Mount(fs_type="tmpfs", source="tmpfs", target=tmp_path / ".probe" / "rootfs"))

    with probe_dir(tmp_path) as probe:
        assert list(probe.iterdir()) == []

    assert list(tmp_path.iterdir()) == []
    assert mounts_at_or_below(tmp_path) == ()


def test_place_is_locked_while_it_is_lent(tmp_path: Path) -> None:
    """Whoever else asks has to wait."""
    with probe_dir(tmp_path):
        assert try_lock(tmp_path / ".probe.lock", exclusive=True) is None


def test_one_prober_at_a_time(tmp_path: Path) -> None:
    """Two workers of a node start at once and are not in each other's way."""
    inside = threading.Semaphore(1)

    def probe(number: int) -> bool:
        with probe_dir(tmp_path) as place:
            was_alone = inside.acquire(blocking=False)
            (place / str(number)).touch()
            is_alone = [path.name for path in place.iterdir()] == [str(number)]
            inside.release()
            return was_alone and is_alone

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(probe, range(12)))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_no_room_to_find_out_is_no_answer(tmp_path: Path) -> None:
    """The next call asks again."""
    store, work = tmp_path / "store", tmp_path / "work"
    store.mkdir()
    work.mkdir()
    mount_filesystem(Mount(fs_type="tmpfs", source="tmpfs", target=store, options=(Option("nr_inodes", "1"),)))
    with pytest.raises(StorageExhausted):
        shares_blocks(work_dir=work, store_dir=store)
    unmount_tree(store)

    assert shares_blocks(work_dir=work, store_dir=store) in (True, False)
    assert list(store.iterdir()) == list(work.iterdir()) == []
