# SPDX-License-Identifier: Apache-2.0
"""A layer in EROFS format is its tar, byte for byte, and what was learnt of it on the way."""

import os
import tracemalloc
from pathlib import Path

import pytest

from tests.support.tar import Dir, File, Opaque, Sparse, Whiteout, tar_bytes
from tests.unit.layers.harness import build, build_blob, chunked, limits
from tests.unit.layers.test_build import BOMBS, HOSTILE
from worker.errors import InvalidLayer, LayerLimitExceeded
from worker.image import LayerFormat
from worker.layers.erofs.build import build_erofs
from worker.layers.record import read_record
from worker.oci.digest import Digest

EROFS = LayerFormat.EROFS


def test_the_tar_is_kept_byte_for_byte(tmp_path: Path) -> None:
    """With all that follows its end; so it can be verified against the DiffID, and handed on."""
    tar = tar_bytes([Dir("d"), File("d/f", os.urandom(100_000))]) + bytes(8192)

    record = build(tar, tmp_path, layer_format=EROFS)

    assert (tmp_path / "layer.tar").read_bytes() == tar
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layer.idx", "layer.json", "layer.tar"]
    assert read_record(tmp_path / "layer.json") == record
    assert (record.diff_id, record.entries, record.tar_bytes) == (Digest.of(tar), 2, len(tar))
    assert record.disk_bytes >= len(tar)


def test_the_index_is_a_function_of_the_tar(tmp_path: Path) -> None:
    """However it was cut."""
    tar = tar_bytes([Dir("d"), *(File(f"d/{n}", b"x" * n) for n in range(100))])
    for chunk_bytes in (512, 10_000, 1 << 20):
        (tmp_path / str(chunk_bytes)).mkdir()
        build_erofs(
            chunked(tar, chunk_bytes), staging_dir=tmp_path / str(chunk_bytes), limits=limits(), is_squashed=False
        )

    assert len({path.read_bytes() for path in tmp_path.glob("*/layer.idx")}) == 1


def test_the_record_says_what_the_layer_hides(tmp_path: Path) -> None:
    """As that of a directory layer."""
    for number, entries in enumerate([[File("a")], [Whiteout("a")], [Opaque()]]):
        (tmp_path / str(number)).mkdir()
        record = build(entries, tmp_path / str(number), layer_format=EROFS)
        assert (record.has_whiteouts, record.is_opaque) == (number > 0, number == 2)


def test_the_record_says_how_long_the_sparse_files_are(tmp_path: Path) -> None:
    """All of them together, each in whole pages; an empty one needs no file."""
    for number, sizes in enumerate([(), (0,), (5000, 1 << 20, 0)]):
        (tmp_path / str(number)).mkdir()
        entries = [Sparse(f"s{size}", size, {0: b"data"} if size else {}) for size in sizes]
        record = build([File("f", b"plain"), *entries], tmp_path / str(number), layer_format=EROFS)
        assert record.sparse_bytes == sum(size + -size % 4096 for size in sizes)

    assert [path.parent.name for path in tmp_path.glob("*/layer.blob")] == ["2"]
    assert (tmp_path / "2/layer.blob").stat().st_size == record.sparse_bytes


@pytest.mark.parametrize(("archive", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused(archive: bytes, reason: str, tmp_path: Path) -> None:
    """As by directory layers, by the same table."""
    with pytest.raises(InvalidLayer, match=reason):
        build(archive, tmp_path, layer_format=EROFS)

    assert not (tmp_path / "layer.json").exists()


@pytest.mark.parametrize(("archive", "changes", "limit"), BOMBS.values(), ids=BOMBS)
def test_a_layer_beyond_a_limit_is_refused(archive: bytes, changes: dict[str, int], limit: str, tmp_path: Path) -> None:
    """As by directory layers, by the same table."""
    with pytest.raises(LayerLimitExceeded, match=limit):
        build(archive, tmp_path, layer_format=EROFS, limits=limits(**changes))


def test_memory_does_not_grow_with_the_bytes(tmp_path: Path) -> None:
    """A large file passes in chunks, a few of which wait between the stages."""
    tar = tar_bytes([File("f", bytes(48 << 20))])
    diff_id = Digest.of(tar)
    tracemalloc.start()

    build_blob(tar, tmp_path, diff_id=diff_id, layer_format=EROFS)

    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 16 << 20
