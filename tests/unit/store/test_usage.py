# SPDX-License-Identifier: Apache-2.0
"""How much a store holds, as layers come and go."""

from pathlib import Path

import pytest

from tests.support.layers_on_shelf import put_layer
from worker.image import LayerFormat
from worker.oci.digest import Digest
from worker.paths import StorePaths
from worker.store.store import Store
from worker.store.usage import Held, StoreUsage

FIRST, SECOND = (Digest.parse(f"sha256:{character * 64}") for character in "ab")


def test_what_comes_and_goes_is_seen(tmp_path: Path) -> None:
    """Each format for itself."""
    store = Store.open(tmp_path / "store")
    usage = StoreUsage(store.paths)
    put_layer(store, FIRST, disk_bytes=1000)
    put_layer(store, SECOND, disk_bytes=500)

    before = usage.held()
    store.paths.layer_dir(str(FIRST), layer_format="directory").rename(tmp_path / "pruned")
    after = usage.held()

    assert before[LayerFormat.DIRECTORY] == Held(layers=2, disk_bytes=1500)
    assert before[LayerFormat.EROFS] == Held(layers=0, disk_bytes=0)
    assert after[LayerFormat.DIRECTORY] == Held(layers=1, disk_bytes=500)


def test_a_layer_is_looked_up_once(tmp_path: Path) -> None:
    """Ten thousand layers are not read at each scrape: the record may go unnoticed, the layer not."""
    store = Store.open(tmp_path / "store")
    usage = StoreUsage(store.paths)
    put_layer(store, FIRST, disk_bytes=1000)
    usage.held()
    (store.paths.layer_dir(str(FIRST), layer_format="directory") / "layer.json").unlink()

    assert usage.held()[LayerFormat.DIRECTORY] == Held(layers=1, disk_bytes=1000)


def test_a_damaged_layer_hides_no_other(tmp_path: Path) -> None:
    """Only what can be read is added up; once it can be, it counts."""
    store = Store.open(tmp_path / "store")
    usage = StoreUsage(store.paths)
    put_layer(store, FIRST, disk_bytes=1000)
    put_layer(store, SECOND, disk_bytes=500)
    record_path = store.paths.layer_dir(str(SECOND), layer_format="directory") / "layer.json"
    sound = record_path.read_bytes()
    record_path.write_bytes(b"{")
    damaged = usage.held()[LayerFormat.DIRECTORY]
    record_path.write_bytes(sound)

    assert damaged == Held(layers=1, disk_bytes=1000)
    assert usage.held()[LayerFormat.DIRECTORY] == Held(layers=2, disk_bytes=1500)


def test_without_a_store_there_is_nothing_to_count(tmp_path: Path) -> None:
    """And none is made by counting."""
    with pytest.raises(FileNotFoundError):
        StoreUsage(StorePaths(tmp_path / "none")).images()

    assert not (tmp_path / "none").exists()
