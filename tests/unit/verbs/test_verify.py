# SPDX-License-Identifier: Apache-2.0
"""verify: real corruption of real stores is found, named by kind, and repaired from where the image came from."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import Layer, build_image, layer
from tests.support.layouts import write_layout
from tests.support.mounts import mounts_below, unmount
from tests.support.provisioners import SMALL_TREE, files, provisioner, small_layout, tree_text
from tests.support.registry_server import Registry, registry_server
from tests.support.tar import File
from worker.errors import ImageNotFound, InvalidArgument
from worker.linux.flock import locked
from worker.oci.digest import Digest
from worker.provisioner import Elsewhere, Provisioner
from worker.settings import MIB

pytestmark = [pytest.mark.root, pytest.mark.redis]


@pytest.fixture
def erofs_node(tmp_path: Path, redis_url: str) -> Iterator[Provisioner]:
    """A node whose layers stay tars."""
    with provisioner(tmp_path, redis_url, layer_format="erofs") as made:
        yield made


def _verify(node: Provisioner, **keywords: object) -> dict[str, Any]:
    answer = node.verify(keywords)
    assert not isinstance(answer, Elsewhere)
    return answer


def _kinds(problems: list[dict[str, str]]) -> set[tuple[str, str]]:
    return {(problem["kind"], problem["subject"]) for problem in problems}


def _provision(node: Provisioner, container_id: str, image: str) -> dict[str, Any]:
    answer = node.provision({"container_id": container_id, "image": image})
    assert not isinstance(answer, Elsewhere)
    return answer


def _digest(node: Provisioner) -> str:
    (digest,) = node.node.store.images.digests()
    return str(digest)


def _layer_dirs(node: Provisioner) -> list[Path]:
    layers = node.node.store.layers
    return sorted(layers.directory(digest, layer_format=layer_format) for layer_format, digest in layers.committed())


def flip(path: Path, position: int = -1) -> None:
    """Flip a bit of a file, in its middle by default, without touching its size or its time."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2 if position < 0 else position] ^= 0x10
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_sound_store_has_no_problems(node: Provisioner, image: str, layer_format: str) -> None:
    """Every layer is read once, nothing is left in staging, and a container in use is no problem."""
    info = _provision(node, "c1", image)

    answer = _verify(node)

    assert (answer["problems"], answer["repaired"]) == ([], [])
    assert (answer["store"], answer["node"]) == (node.node.store.identity, "n1")
    assert answer["checked_layers"] == 2
    if layer_format == "erofs":
        assert answer["checked_bytes"] == sum((path / "layer.tar").stat().st_size for path in _layer_dirs(node))
    assert files(node.node.store.paths.staging_dir) == []
    assert tree_text(info["rootfs"]) == SMALL_TREE


def _truncate(layer_dir: Path) -> None:
    with (layer_dir / "layer.tar").open("r+b") as tar:
        tar.truncate(1536)


ANY_LAYER_DAMAGE: list[tuple[Callable[[Path], object], set[str]]] = [
    (lambda path: flip(path / "layer.tar"), {"layer-digest-wrong"}),
    (lambda path: flip(path / "layer.tar", 0), {"layer-digest-wrong"}),
    (_truncate, {"layer-digest-wrong", "layer-size-wrong"}),
    (lambda path: (path / "layer.tar").write_bytes(b""), {"layer-digest-wrong", "layer-size-wrong"}),
    (lambda path: (path / "layer.tar").unlink(), {"layer-data-missing"}),
    (lambda path: flip(path / "layer.idx"), {"layer-index-wrong"}),
    (lambda path: (path / "layer.idx").unlink(), {"layer-index-wrong"}),
    (lambda path: (path / "layer.blob").write_bytes(b"x"), {"layer-blob-wrong"}),
    (lambda path: (path / "layer.json").write_bytes(b"{}"), {"layer-record-corrupt"}),
    (lambda path: (path / "layer.json").unlink(), {"layer-record-corrupt"}),
]


@pytest.mark.parametrize(("damage", "kinds"), ANY_LAYER_DAMAGE)
def test_any_damage_to_a_tar_layer_is_found_and_repaired(
    erofs_node: Provisioner, image: str, damage: Callable[[Path], object], kinds: set[str]
) -> None:
    """Only the damaged one is fetched; afterwards the store is sound and the image as it was."""
    erofs_node.pull({"image": image})
    damaged, sound = _layer_dirs(erofs_node)
    inode = sound.stat().st_ino
    damage(damaged)

    found = _verify(erofs_node)
    repaired = _verify(erofs_node, repair=True)

    assert _kinds(found["problems"]) == {(kind, f"erofs/{damaged.name}") for kind in kinds}
    assert _kinds(repaired["repaired"]) == _kinds(found["problems"])
    assert repaired["problems"] == []
    assert _verify(erofs_node)["problems"] == []
    assert sound.stat().st_ino == inode
    assert tree_text(_provision(erofs_node, "c1", image)["rootfs"]) == SMALL_TREE
    assert files(erofs_node.node.store.paths.trash_dir) == files(erofs_node.node.store.paths.staging_dir) == []


def test_a_flipped_bit_anywhere_in_a_layer_is_found(erofs_node: Provisioner, image: str) -> None:
    """Whichever byte of whichever file the layer is made of, its record's numbers included."""
    erofs_node.pull({"image": image})
    layer_dir = _layer_dirs(erofs_node)[0]

    for name in ("layer.tar", "layer.idx"):
        path = layer_dir / name
        for position in range(0, path.stat().st_size, max(1, path.stat().st_size // 20)):
            flip(path, position)
            assert _verify(erofs_node)["problems"], (name, position)
            flip(path, position)
    assert _verify(erofs_node)["problems"] == []


def _truncate_blob(layer_dir: Path) -> None:
    with (layer_dir / "layer.blob").open("r+b") as blob:
        blob.truncate(4096)


def _misstate_blob(layer_dir: Path) -> None:
    record = json.loads((layer_dir / "layer.json").read_bytes())
    (layer_dir / "layer.json").write_text(json.dumps(record | {"sparse_bytes": 4096}))


SPARSE_DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: flip(path / "layer.blob", 4096 * 3), "layer-blob-wrong"),
    (lambda path: (path / "layer.blob").unlink(), "layer-data-missing"),
    (_truncate_blob, "layer-blob-wrong"),
    (_misstate_blob, "layer-size-wrong"),
]


@pytest.mark.parametrize(("damage", "kind"), SPARSE_DAMAGE)
def test_a_sparse_files_copy_is_compared(
    erofs_node: Provisioner, tmp_path: Path, damage: Callable[[Path], object], kind: str
) -> None:
    """What is written out beside the tar is made of it again."""
    tar = _sparse_tar(tmp_path)
    write_layout(tmp_path / "layout", {"latest": build_image([tar])})
    image = f"oci:{tmp_path}/layout:latest"
    erofs_node.pull({"image": image})
    (layer_dir,) = _layer_dirs(erofs_node)
    assert _verify(erofs_node)["problems"] == []

    damage(layer_dir)

    assert _kinds(_verify(erofs_node)["problems"]) == {(kind, f"erofs/{layer_dir.name}")}
    assert _verify(erofs_node, repair=True)["problems"] == []


def _sparse_tar(tmp_path: Path) -> Layer:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(4096 * 3)
        file.write(b"data" * 1024)
    content = subprocess.run(["tar", "--sparse", "-C", source, "-cf", "-", "."], check=True, capture_output=True).stdout
    return Layer(content)


def test_what_is_checked_of_a_tree(tmp_path: Path, redis_url: str, image: str) -> None:
    """Record and presence; a change in place is not noticed, and the documentation says so."""
    with provisioner(tmp_path, redis_url, layer_format="directory") as node:
        node.pull({"image": image})
        first, second = _layer_dirs(node)
        shutil.rmtree(first / "tree")
        (second / "layer.json").write_bytes(b"[]")

        found = _verify(node)
        repaired = _verify(node, repair=True)

        expected = {
            ("layer-data-missing", f"directory/{first.name}"),
            ("layer-record-corrupt", f"directory/{second.name}"),
        }
        assert _kinds(found["problems"]) == _kinds(repaired["repaired"]) == expected
        assert tree_text(_provision(node, "c1", image)["rootfs"]) == SMALL_TREE


def test_a_tree_in_use_is_not_replaced(tmp_path: Path, redis_url: str, image: str) -> None:
    """Its files would vanish under the container: it says who must go first."""
    with provisioner(tmp_path, redis_url, layer_format="directory") as node:
        info = _provision(node, "c1", image)
        for layer_dir in _layer_dirs(node):
            (layer_dir / "layer.json").write_bytes(b"[]")

        answer = _verify(node, repair=True)

        details = [each["detail"] for each in answer["problems"] if each["kind"] == "layer-record-corrupt"]
        assert len(details) == 2
        assert all("c1/rootfs on n1" in detail for detail in details)
        assert tree_text(info["rootfs"]) == SMALL_TREE
        node.destroy({"container_id": "c1"})
        assert _verify(node, repair=True)["problems"] == []


def test_who_stands_on_replaced_files_is_named(erofs_node: Provisioner, image: str) -> None:
    """The running container keeps its files; the next one gets the new ones."""
    info = _provision(erofs_node, "c1", image)
    for layer_dir in _layer_dirs(erofs_node):
        flip(layer_dir / "layer.idx")

    answer = _verify(erofs_node, repair=True)

    assert _kinds(answer["problems"]) == {("container-mount-wrong", "c1/rootfs")}
    assert tree_text(info["rootfs"]) == SMALL_TREE
    assert tree_text(_provision(erofs_node, "c2", image)["rootfs"]) == SMALL_TREE
    for container_id in ("c1", "c2"):
        erofs_node.destroy({"container_id": container_id})
    assert mounts_below(erofs_node.node.work.work_dir) == []


def test_a_source_that_is_gone_leaves_the_problem(erofs_node: Provisioner, image: str, tmp_path: Path) -> None:
    """The damaged layer stays where it is, and the sentence says why it could not be repaired."""
    erofs_node.pull({"image": image})
    for layer_dir in _layer_dirs(erofs_node):
        flip(layer_dir / "layer.tar")
    small_layout(tmp_path / "layout", "another by now")

    answer = _verify(erofs_node, repair=True)

    assert answer["repaired"] == []
    assert len(answer["problems"]) == 2
    assert all("not repairable now" in problem["detail"] for problem in answer["problems"])
    assert len(_layer_dirs(erofs_node)) == 2


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry of the test's own."""
    (tmp_path / "registry").mkdir()
    with registry_server(tmp_path / "registry") as server:
        yield server


@pytest.mark.registry
def test_a_registry_is_asked_by_digest_for_the_damaged_layer_only(erofs_node: Provisioner, registry: Registry) -> None:
    """The tag has moved on since, and the other layer is not asked for."""
    old = build_image([layer(File("a", b"1")), layer(File("b", b"2"))])
    image = registry.push("app", "1", old)
    erofs_node.pull({"image": image})
    registry.push("app", "1", build_image([layer(File("new", b"3"))]))
    damaged = _layer_dirs(erofs_node)[0]
    flip(damaged / "layer.tar")
    before = len(registry.blob_requests())

    answer = _verify(erofs_node, repair=True)

    assert _kinds(answer["repaired"]) == {("layer-digest-wrong", f"erofs/{damaged.name}")}
    fetched = {path.rpartition("/")[2] for path in registry.blob_requests()[before:]}
    blobs = {item.diff_id: blob.digest for item, blob in zip(old.layers, old.layer_blobs, strict=True)}
    assert fetched - {old.config.digest} == {blobs[damaged.name]}
    assert _verify(erofs_node)["problems"] == []


IMAGE_DAMAGE = ["manifest.json", "config.json"]


@pytest.mark.parametrize("name", IMAGE_DAMAGE)
@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_manifest_and_configuration_are_what_their_digests_say(
    node: Provisioner, image: str, name: str, damage: Callable[[Path], None]
) -> None:
    """Fetched anew under the same digest; refs stay, so a container keeps its image."""
    info = _provision(node, "c1", image)
    path = node.node.store.paths.image_dir(info["digest"]) / name
    whole = path.read_bytes()
    damage(path)

    found = _verify(node)
    repaired = _verify(node, repair=True)

    assert _kinds(found["problems"]) == _kinds(repaired["repaired"]) == {("image-corrupt", info["digest"])}
    assert path.read_bytes() == whole
    assert _verify(node)["problems"] == []


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(b""), _append])
def test_the_merged_file_is_computed_again_and_compared(
    erofs_node: Provisioner, image: str, damage: Callable[[Path], object]
) -> None:
    """Also one whose checksum is right."""
    info = _provision(erofs_node, "c1", image)
    path = erofs_node.node.store.paths.merged_path(info["digest"])
    whole = path.read_bytes()
    damage(path)

    answer = _verify(erofs_node, repair=True)

    assert _kinds(answer["repaired"]) == {("image-merged-wrong", info["digest"])}
    assert path.read_bytes() == whole


def test_an_image_too_large_to_be_merged_again_is_told(erofs_node: Provisioner, tmp_path: Path, redis_url: str) -> None:
    """The limit was another one once."""
    write_layout(tmp_path / "layout", {"latest": build_image([layer(*(File(f"{n}") for n in range(3000)))])})
    info = _provision(erofs_node, "c1", f"oci:{tmp_path}/layout:latest")

    with provisioner(tmp_path, redis_url, layer_format="erofs", max_index_bytes=MIB) as node:
        problems = _verify(node, repair=True)["problems"]

        assert ("image-merged-wrong", info["digest"]) in _kinds(problems)
        assert all("bytes of metadata" in problem["detail"] for problem in problems)


def test_references_that_lead_nowhere_or_say_nothing_go(node: Provisioner, image: str) -> None:
    """The good one stays."""
    node.pull({"image": image})
    images, paths = node.node.store.images, node.node.store.paths
    images.remember("docker.io/library/gone:1", platform="linux/amd64", digest=Digest("sha256", "0" * 64), opener=None)
    (paths.references_dir / "garbage").write_text("[]")

    found = _verify(node)
    answer = _verify(node, repair=True)

    expected = {("reference-dangling", "docker.io/library/gone:1"), ("reference-corrupt", "garbage")}
    assert _kinds(found["problems"]) == _kinds(answer["repaired"]) == expected
    assert [each.reference for _, each in images.references()] == [image]


def test_refs_of_nobody_and_strays_are_found(node: Provisioner, image: str, layer_format: str) -> None:
    """A stray is somebody's to look at."""
    node.pull({"image": image})
    (node.node.store.paths.refs_dir(_digest(node)) / "torn").write_bytes(b'{"node":')
    stray = node.node.store.paths.layers_dir / layer_format / "core.1234"
    stray.write_bytes(b"x")

    answer = _verify(node, repair=True)

    assert _kinds(answer["repaired"]) == {("ref-corrupt", _digest(node))}
    assert _kinds(answer["problems"]) == {("stray", str(stray))}
    assert stray.exists()


def test_what_a_container_stands_on_is_checked_and_brought_back(
    node: Provisioner, image: str, layer_format: str
) -> None:
    """Its ref, its layers, its mount; what was written into it is kept."""
    info = _provision(node, "c1", image)
    (Path(info["rootfs"]) / "mine").write_text("kept")
    unmount(mounts_below(node.node.work.work_dir))
    for path, _ in node.node.store.images.refs(Digest.parse(info["digest"])):
        path.unlink()
    shutil.rmtree(_layer_dirs(node)[0])

    found = _verify(node)
    answer = _verify(node, repair=True)

    kinds = {"container-ref-missing", "container-layer-missing", "container-not-mounted"}
    assert _kinds(found["problems"]) == {(kind, "c1/rootfs") for kind in kinds}
    assert _kinds(answer["repaired"]) == _kinds(found["problems"])
    assert _verify(node)["problems"] == []
    assert tree_text(info["rootfs"]) == {**SMALL_TREE, "mine": "kept"}


def test_a_container_whose_image_is_gone_gets_it_back(node: Provisioner, image: str) -> None:
    """Somebody deleted by hand."""
    info = _provision(node, "c1", image)
    shutil.rmtree(node.node.store.paths.image_dir(info["digest"]))

    found = _verify(node)
    answer = _verify(node, repair=True)

    assert ("container-image-missing", "c1/rootfs") in _kinds(found["problems"])
    assert answer["problems"] == []
    assert _verify(node)["problems"] == []


def test_a_container_that_somebody_works_on_is_left_out(node: Provisioner, image: str) -> None:
    """Between its record and its mount a rootfs is not there, and that is as it must be."""
    _provision(node, "c1", image)
    unmount(mounts_below(node.node.work.containers_dir))

    with locked(node.node.work.container_lock_path(("c1",)), exclusive=True):
        assert _verify(node)["problems"] == []
    assert _kinds(_verify(node)["problems"]) == {("container-not-mounted", "c1/rootfs")}


def test_a_corrupt_record_is_told_and_left_to_recover(node: Provisioner, image: str) -> None:
    """It does not stop the rest."""
    _provision(node, "c1", image)
    record = node.node.work.record_path(("c1",))
    whole = record.read_bytes()
    record.write_bytes(b"{")

    answer = _verify(node, repair=True)

    assert _kinds(answer["problems"]) == {("container-record-corrupt", "c1")}
    record.write_bytes(whole)


def test_everything_is_reported_at_once(erofs_node: Provisioner, image: str, tmp_path: Path) -> None:
    """One mismatch hides no other."""
    other = small_layout(tmp_path / "other", "other")
    _provision(erofs_node, "c1", image)
    erofs_node.pull({"image": other})
    for layer_dir in _layer_dirs(erofs_node):
        flip(layer_dir / "layer.tar")
    digests = [str(digest) for digest in erofs_node.node.store.images.digests()]
    for digest in digests:
        flip(erofs_node.node.store.paths.config_path(digest))

    found = _kinds(_verify(erofs_node)["problems"])

    assert found == {
        *(("layer-digest-wrong", f"erofs/{layer_dir.name}") for layer_dir in _layer_dirs(erofs_node)),
        *(("image-corrupt", digest) for digest in digests),
    }
    assert len(found) == 6


def test_one_image_is_verified_by_name_or_digest(erofs_node: Provisioner, image: str, tmp_path: Path) -> None:
    """What is wrong with others is none of its business."""
    other = small_layout(tmp_path / "other", "other")
    erofs_node.pull({"image": image})
    mine, digest = {path.name for path in _layer_dirs(erofs_node)}, _digest(erofs_node)
    erofs_node.pull({"image": other})
    for layer_dir in _layer_dirs(erofs_node):
        if layer_dir.name not in mine:
            flip(layer_dir / "layer.tar")

    for name in (image, digest):
        answer = _verify(erofs_node, image=name)
        assert (answer["problems"], answer["checked_layers"]) == ([], 2)
    assert len(_verify(erofs_node, image=other)["problems"]) == 2
    shutil.rmtree(erofs_node.node.store.paths.layers_dir)
    assert {kind for kind, _ in _kinds(_verify(erofs_node, image=image)["problems"])} == {"image-layer-missing"}


def test_bad_requests_are_named(node: Provisioner) -> None:
    """An image nobody knows, one that is none, another node."""
    with pytest.raises(ImageNotFound, match="nobody/knows"):
        _verify(node, image="nobody/knows:1")
    with pytest.raises(InvalidArgument, match="UPPER"):
        _verify(node, image="UPPER")
    assert node.verify({"node": "n2"}) == Elsewhere(node="n2")
