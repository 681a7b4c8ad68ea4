# SPDX-License-Identifier: Apache-2.0
"""A layer that was damaged in the store is found when something is to stand on it, replaced, and never used."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.images import build_image, layer
from tests.support.layouts import write_layout
from tests.support.provisioners import provisioner, tree_text
from tests.support.tar import File, Sparse
from worker.errors import ImageNotFound
from worker.image import LayerFormat
from worker.oci.digest import Digest
from worker.provisioner import Elsewhere, Provisioner

pytestmark = [pytest.mark.root, pytest.mark.redis]


@pytest.fixture
def erofs_node(tmp_path: Path, redis_url: str) -> Iterator[Provisioner]:
    """A node whose layers stay tars."""
    with provisioner(tmp_path, redis_url, layer_format="erofs") as made:
        yield made


@pytest.fixture
def image(tmp_path: Path) -> str:
    """Two layers with data of their own, below them sparse files as well."""
    base = layer(Sparse("sparse", 5000, {10: b"data"}), File("a", b"base"))
    top = layer(File("a", b"top"), File("b", b"top"))
    write_layout(tmp_path / "layout", {"latest": build_image([base, top])})
    return f"oci:{tmp_path}/layout:latest"


TREE = {"a": "top", "b": "top", "sparse": "\0" * 10 + "data" + "\0" * 4986}


def _truncate(layer_dir: Path) -> None:
    with (layer_dir / "layer.tar").open("r+b") as tar:
        tar.truncate(512)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def _corrupt_index(layer_dir: Path) -> None:
    _flip(layer_dir / "layer.idx")


def _remove_tar(layer_dir: Path) -> None:
    (layer_dir / "layer.tar").unlink()


def _corrupt_record(layer_dir: Path) -> None:
    (layer_dir / "layer.json").write_bytes(b'{"version": 1')


def _swap_record(layer_dir: Path) -> None:
    other = next(path for path in sorted(layer_dir.parent.iterdir()) if path != layer_dir)
    shutil.copy(other / "layer.json", layer_dir / "layer.json")


def _remove_record(layer_dir: Path) -> None:
    (layer_dir / "layer.json").unlink()


def _remove_blob(layer_dir: Path) -> None:
    (layer_dir / "layer.blob").unlink(missing_ok=True)


def _truncate_blob(layer_dir: Path) -> None:
    if (layer_dir / "layer.blob").exists():
        (layer_dir / "layer.blob").write_bytes(b"")


def _put_blob(layer_dir: Path) -> None:
    if not (layer_dir / "layer.blob").exists():
        (layer_dir / "layer.blob").write_bytes(bytes(4096))


Damage = Callable[[Path], None]
EROFS_DAMAGE = [
    _truncate,
    _corrupt_index,
    _remove_tar,
    _remove_blob,
    _truncate_blob,
    _put_blob,
    _corrupt_record,
    _swap_record,
    _remove_record,
]


def layer_dirs(node: Provisioner) -> list[Path]:
    """Return the directories of all committed layers."""
    layers = node.node.store.layers
    return sorted(layers.directory(digest, layer_format=layer_format) for layer_format, digest in layers.committed())


def _merged_path(node: Provisioner) -> Path:
    (digest,) = node.node.store.images.digests()
    return node.node.store.paths.merged_path(str(digest))


def _provision(node: Provisioner, container_id: str, image: str) -> dict[str, str]:
    answer = node.provision({"container_id": container_id, "image": image})
    assert not isinstance(answer, Elsewhere)
    return answer


def _merge(node: Provisioner, image: str) -> None:
    """Leave the layers merged, and mounted nowhere."""
    _provision(node, "c0", image)
    node.destroy({"container_id": "c0"})


@pytest.mark.parametrize("is_merged", [False, True], ids=["never merged", "merged"])
@pytest.mark.parametrize("damage", EROFS_DAMAGE)
def test_a_damaged_layer_is_replaced_before_anything_stands_on_it(
    erofs_node: Provisioner, image: str, damage: Damage, is_merged: bool
) -> None:
    """Both layers are damaged, as far as they can be; only the source's content is ever seen.

    An index is looked at when it is used.
    """
    erofs_node.pull({"image": image})
    if is_merged:
        _merge(erofs_node, image)
    for layer_dir in layer_dirs(erofs_node):
        damage(layer_dir)

    info = _provision(erofs_node, "c1", image)

    assert tree_text(info["rootfs"]) == TREE
    assert (is_merged and damage is _corrupt_index) or _problems(erofs_node) == []


@pytest.mark.parametrize("is_merged", [False, True], ids=["never merged", "merged"])
@pytest.mark.parametrize("damage", [_remove_blob, _put_blob])
def test_files_that_an_older_record_does_not_speak_of_are_missed_when_mounting(
    erofs_node: Provisioner, image: str, damage: Damage, is_merged: bool
) -> None:
    """The index says how many there are, and so does what was merged."""
    erofs_node.pull({"image": image})
    if is_merged:
        _merge(erofs_node, image)
    for layer_dir in layer_dirs(erofs_node):
        record = json.loads((layer_dir / "layer.json").read_bytes())
        del record["sparse_bytes"]
        (layer_dir / "layer.json").write_text(json.dumps(record))
    assert _problems(erofs_node) == []
    for layer_dir in layer_dirs(erofs_node):
        damage(layer_dir)

    info = _provision(erofs_node, "c1", image)

    assert tree_text(info["rootfs"]) == TREE


@pytest.mark.parametrize("damage", EROFS_DAMAGE)
def test_pulling_again_replaces_what_a_look_shows_to_be_damaged(
    erofs_node: Provisioner, image: str, damage: Damage
) -> None:
    """Whether the source is asked again or not; an index is looked at when it is used."""
    for cached in (True, False):
        erofs_node.pull({"image": image})
        for layer_dir in layer_dirs(erofs_node):
            damage(layer_dir)

        erofs_node.pull({"image": image, "cached": cached})

        assert damage is _corrupt_index or _problems(erofs_node) == []
        erofs_node.verify({"repair": True})


@pytest.mark.parametrize("damage", [_corrupt_record, _remove_record])
def test_a_damaged_tree_is_replaced(tmp_path: Path, redis_url: str, image: str, damage: Damage) -> None:
    """As far as a look shows: its record, or that there is no tree."""
    with provisioner(tmp_path, redis_url, layer_format="directory") as node:
        node.pull({"image": image})
        first, second = layer_dirs(node)
        damage(first)
        shutil.rmtree(second / "tree")

        info = _provision(node, "c1", image)

        assert tree_text(info["rootfs"]) == TREE


@pytest.mark.parametrize("damage", [_flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_merged_file_is_computed_anew(
    erofs_node: Provisioner, image: str, damage: Callable[[Path], None]
) -> None:
    """The kernel never sees it."""
    _provision(erofs_node, "c1", image)
    whole = _merged_path(erofs_node).read_bytes()
    erofs_node.destroy({"container_id": "c1"})
    damage(_merged_path(erofs_node))

    info = _provision(erofs_node, "c2", image)

    assert tree_text(info["rootfs"]) == TREE
    assert _merged_path(erofs_node).read_bytes() == whole


def test_what_stands_on_a_damaged_layer_keeps_it_and_others_get_the_new_one(
    erofs_node: Provisioner, image: str
) -> None:
    """The old files live as long as their mount."""
    first = _provision(erofs_node, "c1", image)
    for layer_dir in layer_dirs(erofs_node):
        (layer_dir / "layer.json").write_bytes(b"")

    second = _provision(erofs_node, "c2", image)

    assert tree_text(first["rootfs"]) == TREE
    assert tree_text(second["rootfs"]) == TREE
    assert erofs_node.destroy({"container_id": "c1"}) is True
    assert tree_text(second["rootfs"]) == TREE


def test_without_a_source_a_damaged_layer_stays_refused(erofs_node: Provisioner, image: str, tmp_path: Path) -> None:
    """Nothing is half replaced, and no container is left."""
    erofs_node.pull({"image": image})
    for layer_dir in layer_dirs(erofs_node):
        _truncate(layer_dir)
    shutil.rmtree(tmp_path / "layout")

    with pytest.raises(ImageNotFound):
        _provision(erofs_node, "c1", image)

    assert len(layer_dirs(erofs_node)) == 2
    assert not erofs_node.node.work.container_dir(("c1",)).exists()


def test_a_recorded_rootfs_comes_back_on_a_layer_that_was_gone(
    erofs_node: Provisioner, image: str, tmp_path: Path
) -> None:
    """What the container wrote is kept."""
    info = _provision(erofs_node, "c1", image)
    (Path(info["rootfs"]) / "mine").write_text("kept")
    record = erofs_node.node.work.record_path(("c1",)).read_bytes()
    erofs_node.node.backends["overlay"].destroy(erofs_node.node.work.rootfs_paths(("c1",), name="rootfs"))
    (digest,) = erofs_node.node.store.images.digests()
    erofs_node.node.image_mounts.detach(digest)
    for layer_dir in layer_dirs(erofs_node):
        shutil.rmtree(layer_dir)
    erofs_node.node.containers._client.flushall()

    again = _provision(erofs_node, "c1", image)

    assert again == info
    assert tree_text(info["rootfs"]) == {**TREE, "mine": "kept"}
    assert erofs_node.node.work.record_path(("c1",)).read_bytes() == record


def _problems(node: Provisioner) -> list[object]:
    answer = node.verify({})
    assert not isinstance(answer, Elsewhere)
    return list(answer["problems"])


def test_only_layers_of_the_right_format_are_replaced(erofs_node: Provisioner, image: str) -> None:
    """A sound layer keeps its files."""
    erofs_node.pull({"image": image})
    sound, damaged = layer_dirs(erofs_node)
    before = (sound / "layer.tar").stat().st_ino
    _truncate(damaged)

    _provision(erofs_node, "c1", image)

    assert (sound / "layer.tar").stat().st_ino == before
    for layer_dir in (sound, damaged):
        erofs_node.node.store.layers.check(Digest.parse(layer_dir.name), layer_format=LayerFormat.EROFS)
