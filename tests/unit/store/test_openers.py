# SPDX-License-Identifier: Apache-2.0
"""Marks of who opened an image."""

import stat
from pathlib import Path

from worker.store.store import Store


def test_a_mark_is_of_all_its_parts_and_of_the_store(tmp_path: Path) -> None:
    """The same again is the same, also after a restart; anything else is not, nor the same in another store."""
    store, other = Store.open(tmp_path / "one"), Store.open(tmp_path / "two")
    mark = store.openers.mark("host/a:1", "user", "pass")

    assert Store.open(tmp_path / "one").openers.mark("host/a:1", "user", "pass") == mark
    others = [("host/a:1", "user", "Pass"), ("host/a:1", "userpass", ""), ("host/a:1", "user", "pass", "")]
    assert mark not in {store.openers.mark(*parts) for parts in others}
    assert other.openers.mark("host/a:1", "user", "pass") != mark


def test_the_key_is_the_stores_own(tmp_path: Path) -> None:
    """Nobody else may read it, and nothing is left beside it; one that was cut short is made anew."""
    store = Store.open(tmp_path)
    mark = store.openers.mark("a")
    path = store.paths.openers_key_path

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(store.paths.staging_dir.iterdir()) == []
    path.write_bytes(b"short")
    assert store.openers.mark("a") != mark
