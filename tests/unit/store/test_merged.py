# SPDX-License-Identifier: Apache-2.0
"""The layers of an image become one file, once."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.erofs import LIMITS, build_layers
from tests.support.killing import count_lines, run_killed
from tests.support.tar import File, Sparse, Whiteout
from worker.errors import LayerDamaged, LayerVanished, RecordCorrupt
from worker.linux import durable
from worker.store.merged import merge_image

LAYERS = [[File("a", b"1"), File("b", b"2")], [Whiteout("a"), File("c", b"3")]]


def test_the_file_is_made_once(tmp_path: Path) -> None:
    """Whoever comes later takes it as it is."""
    layer_dirs = build_layers(LAYERS, tmp_path)
    first = merge_image(tmp_path / "merged.erofs", layer_dirs, limits=LIMITS)
    written = first.image_path.stat()
    for layer_dir in layer_dirs:
        (layer_dir / "layer.idx").unlink()

    again = merge_image(tmp_path / "merged.erofs", layer_dirs, limits=LIMITS)

    assert again == first
    assert again.image_path.stat().st_ino == written.st_ino
    assert again.device_paths == tuple(layer_dir / "layer.tar" for layer_dir in layer_dirs)


@pytest.mark.parametrize("missing", ["layer.tar", "layer.idx"])
def test_a_layer_that_is_gone_is_to_be_pulled_again(missing: str, tmp_path: Path) -> None:
    """The error names it and is transient."""
    layer_dirs = build_layers(LAYERS, tmp_path)
    (layer_dirs[1] / missing).unlink()

    with pytest.raises(LayerVanished, match=layer_dirs[1].name):
        merge_image(tmp_path / "merged.erofs", layer_dirs, limits=LIMITS)

    assert not (tmp_path / "merged.erofs").exists()


def test_a_damaged_index_is_named_and_makes_no_image(tmp_path: Path) -> None:
    """Whichever bit of it was flipped."""
    layer_dirs = build_layers(LAYERS, tmp_path)
    path = layer_dirs[1] / "layer.idx"
    whole = path.read_bytes()

    for damaged in (whole[:-1], b"", whole + b"\0", *(_flipped(whole, byte) for byte in range(len(whole)))):
        path.write_bytes(damaged)
        with pytest.raises(LayerDamaged, match=str(path)):
            merge_image(tmp_path / "merged.erofs", layer_dirs, limits=LIMITS)

    assert not (tmp_path / "merged.erofs").exists()


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_with_other_files_than_its_index_counts_makes_no_image(layer: int, tmp_path: Path) -> None:
    """Every device of the layers above would have another's number."""
    layer_dirs = build_layers([[Sparse("s", 10, {0: b"1"})], *LAYERS[:1]], tmp_path)
    blob = layer_dirs[layer] / "layer.blob"
    blob.write_bytes(b"stray") if layer else blob.unlink()

    with pytest.raises(LayerDamaged, match=layer_dirs[layer].name):
        merge_image(tmp_path / "merged.erofs", layer_dirs, limits=LIMITS)

    assert not (tmp_path / "merged.erofs").exists()


def test_a_file_of_other_devices_is_found_before_the_kernel_has_it(tmp_path: Path) -> None:
    """A file beside a tar went or came since."""
    image = merge_image(tmp_path / "merged.erofs", build_layers(LAYERS, tmp_path), limits=LIMITS)
    image.check()

    for paths in (image.device_paths[:1], (*image.device_paths, tmp_path / "stray")):
        with pytest.raises(RecordCorrupt, match="it is of 2 files"):
            replace(image, device_paths=paths).check()


def test_the_file_is_whole_or_not_there_wherever_its_maker_dies(tmp_path: Path) -> None:
    """The next one makes it, or finds it."""
    layer_dirs = build_layers(LAYERS, tmp_path / "layers")
    whole = merge_image(tmp_path / "whole.erofs", layer_dirs, limits=LIMITS).image_path.read_bytes()
    lines = count_lines(lambda: merge_image(tmp_path / "counted.erofs", layer_dirs, limits=LIMITS))
    path = tmp_path / "image/merged.erofs"
    path.parent.mkdir()

    for line in range(lines - 60, lines + 1):
        path.unlink(missing_ok=True)
        run_killed(lambda: merge_image(path, layer_dirs, limits=LIMITS), at_line=line)

        assert not path.exists() or path.read_bytes() == whole
        assert all(durable.is_temporary(other.name) for other in path.parent.iterdir() if other != path)


def _flipped(content: bytes, position: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 0x10
    return bytes(changed)
