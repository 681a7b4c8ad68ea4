# SPDX-License-Identifier: Apache-2.0
"""provision: one rootfs per container and name, however often and however interrupted it is asked for."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from tests.support.filesystems import loop_filesystem
from tests.support.mounts import mounts_below
from tests.support.provisioners import SMALL_TREE, files, keys, provisioner, small_image, small_layout, tree_text
from tests.support.registry_server import registry_server
from worker.errors import BackendUnsupported, ContainerConflict, ImageNotFound, InvalidArgument
from worker.image import LayerFormat
from worker.linux.statfs import knows_filesystem
from worker.oci.digest import Digest
from worker.provisioner import Elsewhere, Provisioner
from worker.store.images import RefOwner

pytestmark = [pytest.mark.root, pytest.mark.redis]


def _provision(node: Provisioner, **keywords: object) -> dict[str, object]:
    answer = node.provision(keywords)
    assert not isinstance(answer, Elsewhere)
    return answer


def test_an_image_becomes_a_writable_rootfs(node: Provisioner, image: str) -> None:
    """The answer has every field of the contract, and the tree is the image's."""
    info = _provision(node, container_id="c1", image=image)

    rootfs = Path(str(info["rootfs"]))
    assert tree_text(str(rootfs)) == SMALL_TREE
    (rootfs / "etc" / "written").write_text("mine")
    assert set(info) == {
        "container_id",
        "name",
        "node",
        "image",
        "digest",
        "backend",
        "layer_format",
        "layers",
        "rootfs",
        "ephemeral_volumes",
        "docker_manifest",
        "appc_manifest",
        "bundle",
    }
    assert (info["container_id"], info["name"], info["node"], info["image"]) == ("c1", "rootfs", "n1", image)
    assert info["backend"] == "overlay"
    assert len(info["layers"]) == 2  # type: ignore[arg-type]
    assert info["docker_manifest"]["rootfs"]["diff_ids"] == info["layers"]  # type: ignore[index]
    assert info["appc_manifest"] is None
    assert info["bundle"] is None
    assert [Path(path).is_dir() for path in info["ephemeral_volumes"]] == [True, True]  # type: ignore[attr-defined]


def test_asking_again_gives_the_same_rootfs(node: Provisioner, image: str) -> None:
    """One mount, one ref, the same answer."""
    first = _provision(node, container_id="c1", image=image)
    (Path(str(first["rootfs"])) / "mine").write_text("kept")

    again = _provision(node, container_id="c1", image=image)

    assert again == first
    assert (Path(str(first["rootfs"])) / "mine").read_text() == "kept"
    assert len(mounts_below(node.node.work.containers_dir)) == 1


def test_a_duplicate_that_comes_second_leaves_the_ref_of_what_the_first_was_answered(
    node: Provisioner, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had pinned the same image when it found the rootfs there: the ref is the rootfs's by now."""
    node.pull({"image": image})
    layers, answers = node.node.store.layers, []
    is_missing = layers.missing

    def first_goes_ahead(*arguments: object, **keywords: object) -> object:
        monkeypatch.undo()
        answers.append(_provision(node, container_id="c1", image=image))
        return is_missing(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(layers, "missing", first_goes_ahead)
    second = _provision(node, container_id="c1", image=image)
    node.prune({})

    assert answers == [second]
    owner = RefOwner(node="n1", container_id="c1", name="rootfs")
    assert node.node.store.images.ref_path(Digest.parse(str(second["digest"])), owner).exists()
    assert (
        node.node.store.layers.missing(
            [Digest.parse(text) for text in second["layers"]],  # type: ignore[attr-defined]
            layer_format=LayerFormat(str(second["layer_format"])),
        )
        == ()
    )


def test_another_image_for_the_same_name_is_an_error_that_changes_nothing(
    node: Provisioner, image: str, tmp_path: Path
) -> None:
    """The error names the container and both images."""
    first = _provision(node, container_id="c1", image=image)
    other = small_layout(tmp_path / "other", "other")

    with pytest.raises(ContainerConflict, match="c1"):
        _provision(node, container_id="c1", image=other)

    assert _provision(node, container_id="c1", image=image) == first
    assert tree_text(str(first["rootfs"])) == SMALL_TREE


def test_another_image_is_an_error_also_after_redis_lost_everything(
    node: Provisioner, image: str, tmp_path: Path, redis_client: redis.Redis
) -> None:
    """The disk decides."""
    first = _provision(node, container_id="c1", image=image)
    redis_client.flushall()

    with pytest.raises(ContainerConflict, match="c1"):
        _provision(node, container_id="c1", image=small_layout(tmp_path / "other", "other"))

    assert tree_text(str(first["rootfs"])) == SMALL_TREE
    assert _provision(node, container_id="c1", image=image) == first


def test_one_container_holds_several_rootfses(node: Provisioner, image: str, tmp_path: Path) -> None:
    """Each name has its own image, tree and quota directories."""
    other = small_layout(tmp_path / "other", "other")

    first = _provision(node, container_id="c1", image=image)
    second = _provision(node, container_id="c1", image=other, name="data")

    assert tree_text(str(first["rootfs"])) == SMALL_TREE
    assert tree_text(str(second["rootfs"]))["new"] == "other"
    assert not set(first["ephemeral_volumes"]) & set(second["ephemeral_volumes"])  # type: ignore[call-overload]


def test_a_nested_container_needs_no_parent_image(node: Provisioner, image: str) -> None:
    """A child may come first; its parent exists as its holder."""
    info = _provision(node, container_id="pod.sidecar", image=image)

    assert tree_text(str(info["rootfs"])) == SMALL_TREE
    assert node.destroy({"container_id": "pod"}) is True
    assert not Path(str(info["rootfs"])).exists()
    assert files(node.node.work.containers_dir) == []


@pytest.mark.parametrize(
    ("image_name", "error"),
    [("oci:/nowhere/at/all", ImageNotFound), ("oci:relative", InvalidArgument)],
)
def test_bad_input_leaves_nothing_behind(
    node: Provisioner, redis_client: redis.Redis, image_name: str, error: type[Exception]
) -> None:
    """Not in the work directory, not in the store, not in Redis."""
    before = files(node.node.store.paths.store_dir)

    with pytest.raises(error, match=r"/nowhere|relative"):
        _provision(node, container_id="c1", image=image_name)

    assert files(node.node.work.containers_dir) == []
    assert set(files(node.node.store.paths.store_dir)) - set(before) <= {"token"}
    assert keys(redis_client) == set()


@pytest.mark.parametrize("backend", ["overlay", "copy"])
def test_the_store_may_have_a_filesystem_of_its_own(
    tmp_path: Path, redis_url: str, image: str, layer_format: str, backend: str
) -> None:
    """As operators of the ancestor were advised to; nothing is renamed or linked from there into a container."""
    settings = {"layer_format": layer_format, "backend": backend}
    with (
        loop_filesystem(tmp_path, "mkfs.ext4", "-q", size_bytes=64 << 20) as disk,
        provisioner(tmp_path, redis_url, store_dir=disk / "store", **settings) as node,
    ):
        info = _provision(node, container_id="c1", image=image)
        tree = tree_text(str(info["rootfs"]))
        node.destroy({"container_id": "c1"})
        node.prune({})

        assert tree == SMALL_TREE
        assert files(node.node.work.containers_dir) == files(node.node.work.trash_dir) == []
        assert list(node.node.store.paths.layers_dir.glob("*/*")) == []


@pytest.mark.registry
def test_a_name_without_a_registry_is_completed_alike_by_every_verb(tmp_path: Path, redis_url: str) -> None:
    """With the node's default registry; the whole name is the same image's, and what is stored."""
    (tmp_path / "registry").mkdir()
    with (
        registry_server(tmp_path / "registry") as registry,
        provisioner(tmp_path, redis_url, default_registry=registry.host) as node,
    ):
        name = registry.push("app", "1", small_image())

        info = _provision(node, container_id="c1", image="app:1")
        again = _provision(node, container_id="c1", image=name)
        pulled = node.pull({"image": "app:1"})
        verified = node.verify({"image": "app:1"})
        node.destroy({"container_id": "c1"})
        pruned = node.prune({"excluded_images": ["app:1"]})

    assert info["image"] == name
    assert again == info
    assert (pulled["image"], pulled["bytes_fetched"]) == (name, 0)  # type: ignore[index]
    assert verified["checked_layers"] == 2  # type: ignore[index]
    assert pruned["images"] == []  # type: ignore[index]


def test_a_source_that_the_node_does_not_take_is_refused(
    tmp_path: Path, redis_url: str, redis_client: redis.Redis, image: str
) -> None:
    """By its name and the setting's, though the store has the image; what was provisioned before is answered."""
    with provisioner(tmp_path, redis_url) as before:
        info = _provision(before, container_id="old", image=image)
        with provisioner(tmp_path, redis_url, image_sources=("docker", "appc")) as node:
            left = files(node.node.work.work_dir), files(node.node.store.paths.store_dir), keys(redis_client)
            for ask in (lambda: _provision(node, container_id="c1", image=image), lambda: node.pull({"image": image})):
                with pytest.raises(
                    InvalidArgument, match=r"oci:.*PROVISIONER_IMAGE_SOURCES of node n1 does not list oci"
                ):
                    ask()

            found = files(node.node.work.work_dir), files(node.node.store.paths.store_dir), keys(redis_client)
            assert found == left
            assert _provision(node, container_id="old", image=image) == info


@pytest.mark.parametrize(
    ("backend", "reason"),
    [("zfs", "there are only overlay, aufs, copy, bind"), ("aufs", "the kernel has no aufs filesystem")],
)
def test_a_backend_that_is_not_here_is_named_with_the_reason(
    node: Provisioner, image: str, redis_client: redis.Redis, backend: str, reason: str
) -> None:
    """It does not exist, or does not work on this node."""
    if knows_filesystem(backend):
        pytest.skip(f"{backend} works here")
    with pytest.raises(BackendUnsupported, match=f"backend {backend} is not supported: {reason}"):
        _provision(node, container_id="c1", image=image, backend=backend)

    assert keys(redis_client) == set()


def test_another_node_is_answered_not_acted_on(node: Provisioner, image: str) -> None:
    """The task layer forwards it."""
    assert node.provision({"container_id": "c1", "image": image, "node": "n2"}) == Elsewhere(node="n2")
    assert files(node.node.work.containers_dir) == []


@pytest.mark.parametrize("backend", ["overlay", "copy"])
def test_read_only_is_read_only(node: Provisioner, image: str, backend: str) -> None:
    """Root cannot write either."""
    info = _provision(node, container_id="c1", image=image, backend=backend, read_only=True)

    with pytest.raises(OSError, match="Read-only"):
        (Path(str(info["rootfs"])) / "file").write_text("x")


def test_many_at_once_get_one_rootfs(node: Provisioner, image: str) -> None:
    """Eight tasks for the same container all get the same answer."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: _provision(node, container_id="c1", image=image), range(8)))

    assert all(answer == answers[0] for answer in answers)
    assert len(mounts_below(node.node.work.containers_dir)) == 1


def test_many_containers_share_layers(node: Provisioner, image: str) -> None:
    """Eight containers of one image: eight mounts, two layers, nothing staged."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: _provision(node, container_id=f"c{number}", image=image), range(8)))

    assert len(mounts_below(node.node.work.containers_dir)) == 8
    assert len(list(node.node.store.layers.committed())) == 2
    assert files(node.node.store.paths.staging_dir) == []


def test_the_reference_is_remembered_until_asked_anew(node: Provisioner, tmp_path: Path) -> None:
    """A moved tag is seen with cached=False only."""
    image = small_layout(tmp_path / "layout", "first")
    _provision(node, container_id="c1", image=image)
    small_layout(tmp_path / "layout", "second")

    cached = _provision(node, container_id="c2", image=image)
    fresh = _provision(node, container_id="c3", image=image, cached=False)

    assert tree_text(str(cached["rootfs"]))["new"] == "first"
    assert tree_text(str(fresh["rootfs"]))["new"] == "second"


def test_no_program_of_the_host_is_needed(node: Provisioner, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ancestor ran curl, tar, cp, gzip, sha512sum and hadoop from the agent's PATH."""
    monkeypatch.setenv("PATH", "")

    info = _provision(node, container_id="c1", image=image)
    copied = _provision(node, container_id="c1", image=image, name="copied", backend="copy")

    assert tree_text(str(info["rootfs"])) == tree_text(str(copied["rootfs"])) == SMALL_TREE
    assert node.destroy({"container_id": "c1"}) is True
    node.prune({})
    assert files(node.node.store.paths.images_dir) == []
