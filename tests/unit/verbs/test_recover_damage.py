# SPDX-License-Identifier: Apache-2.0
"""recover over a damaged disk: all that the ancestor tolerated, all that made it give up, and all that it leaked."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.support.mounts import mounts_below, unmount
from tests.support.provisioners import SMALL_TREE, files, keys, provisioner, small_layout, tree_text
from worker.container_id import ContainerId
from worker.paths import WorkPaths
from worker.provisioner import Elsewhere, Provisioner
from worker.runtime import make_provisioner

pytestmark = [pytest.mark.root, pytest.mark.redis]


def _provision(node: Provisioner, container_id: str, image: str, **more: object) -> Path:
    answer = node.provision({"container_id": container_id, "image": image, **more})
    assert not isinstance(answer, Elsewhere)
    return Path(answer["rootfs"])


def _recover(node: Provisioner, **keywords: object) -> dict[str, object]:
    answer = node.recover(keywords, is_start=True)
    assert not isinstance(answer, Elsewhere)
    return answer


def _file_among_the_containers(work: WorkPaths) -> None:
    (work.containers_dir / "bad").write_text("no container")


def _link_among_the_containers(work: WorkPaths) -> None:
    (work.containers_dir / "bad").symlink_to(work.containers_dir)


def _name_that_is_no_container(work: WorkPaths) -> None:
    (work.containers_dir / "not a container").mkdir()


def _nested_name_that_is_no_container(work: WorkPaths) -> None:
    (work.nested_dir(("good",)) / "not a container").mkdir(parents=True)


def _file_where_nested_ones_belong(work: WorkPaths) -> None:
    work.nested_dir(("good",)).write_text("no directory")


def _file_among_nested_ones(work: WorkPaths) -> None:
    work.nested_dir(("good",)).mkdir()
    (work.nested_dir(("good",)) / "bad").write_text("no container")


def _container_without_anything(work: WorkPaths) -> None:
    work.container_dir(("bad",)).mkdir()


def _container_without_rootfses(work: WorkPaths) -> None:
    work.container_dir(("bad",)).mkdir()
    work.container_lock_path(("bad",)).touch()


def _file_where_rootfses_belong(work: WorkPaths) -> None:
    _container_without_rootfses(work)
    work.rootfses_dir(("bad",)).write_text("no directory")


def _file_in_the_place_of_a_rootfs(work: WorkPaths) -> None:
    work.rootfses_dir(("bad",)).mkdir(parents=True)
    work.container_lock_path(("bad",)).touch()
    (work.rootfses_dir(("bad",)) / "rootfs").write_text("no rootfs")


def _directory_in_the_place_of_the_record(work: WorkPaths) -> None:
    work.record_path(("bad",)).mkdir(parents=True)
    work.container_lock_path(("bad",)).touch()


def _directory_in_the_place_of_the_lock(work: WorkPaths) -> None:
    work.container_lock_path(("bad",)).mkdir(parents=True)


def _empty_record(work: WorkPaths) -> None:
    _container_without_rootfses(work)
    work.record_path(("bad",)).touch()


def _cut_record(work: WorkPaths) -> None:
    _container_without_rootfses(work)
    content = work.record_path(("good",)).read_bytes()
    work.record_path(("bad",)).write_bytes(content[: len(content) // 2])


def _record_of_another_shape(work: WorkPaths) -> None:
    _container_without_rootfses(work)
    work.record_path(("bad",)).write_text('{"rootfses": {"rootfs": {"info": 7}}, "pending": []}')


def _record_written_halfway(work: WorkPaths) -> None:
    _container_without_rootfses(work)
    (work.container_dir(("bad",)) / ".tmp-0123456789abcdef").write_text("{")


STAYS = [
    _file_among_the_containers,
    _link_among_the_containers,
    _name_that_is_no_container,
    _nested_name_that_is_no_container,
    _file_where_nested_ones_belong,
    _file_among_nested_ones,
    _directory_in_the_place_of_the_lock,
]
"""What is no container is nobody's to delete."""
GOES = [
    _container_without_anything,
    _container_without_rootfses,
    _file_where_rootfses_belong,
    _file_in_the_place_of_a_rootfs,
    _directory_in_the_place_of_the_record,
    _empty_record,
    _cut_record,
    _record_of_another_shape,
    _record_written_halfway,
]
"""A container of which nothing can be brought back."""


@pytest.mark.parametrize("damage", [*STAYS, *GOES])
def test_whatever_lies_there_the_others_recover_and_can_be_destroyed(
    node: Provisioner, image: str, redis_client: redis.Redis, damage: Callable[[WorkPaths], None]
) -> None:
    """The ancestor's agent did not start again after a record cut short."""
    rootfs = _provision(node, "good", image)
    (rootfs / "mine").write_text("kept")
    damage(node.node.work)
    before = set(files(node.node.work.containers_dir))
    unmount(mounts_below(rootfs))

    answer = _recover(node)

    assert answer["remounted"] == ["good"]
    assert tree_text(str(rootfs)) == {**SMALL_TREE, "mine": "kept"}
    assert {str(view.container_id) for view in node.node.containers.list()} == {"good"}
    left = {path for path in files(node.node.work.containers_dir) if path in before and not path.startswith("good")}
    assert left == ({path for path in before if not path.startswith("good")} if damage in STAYS else set())
    assert node.destroy({"container_id": "good"}) is True
    assert not node.node.work.container_dir(("good",)).exists()
    assert keys(redis_client) == set()


def test_a_temporary_of_a_dead_writer_goes_with_its_container(node: Provisioner, image: str) -> None:
    """A worker was killed while it wrote the record: the old one counts."""
    _provision(node, "good", image)
    (node.node.work.container_dir(("good",)) / ".tmp-0123456789abcdef").write_text('{"rootfses"')

    assert _recover(node)["kept"] == ["good"]
    assert node.destroy({"container_id": "good"}) is True

    assert files(node.node.work.work_dir / "containers") == []


@pytest.mark.parametrize("directory", ["containers", "trash", "images"])
def test_a_missing_directory_of_the_node_is_an_empty_one(node: Provisioner, image: str, directory: str) -> None:
    """Somebody tidied up; the next worker starts all the same, and works."""
    shutil.rmtree(node.node.work.work_dir / directory, ignore_errors=True)

    started = make_provisioner(node.node.settings)
    _recover(started)
    rootfs = _provision(started, "c1", image)

    assert tree_text(str(rootfs)) == SMALL_TREE


@pytest.mark.parametrize("directory", ["images", "references", "layers", "staging", "partial", "trash"])
def test_a_missing_directory_of_the_store_is_an_empty_one(node: Provisioner, image: str, directory: str) -> None:
    """The ancestor's prune failed on a store that was never used."""
    shutil.rmtree(node.node.store.paths.store_dir / directory, ignore_errors=True)

    started = make_provisioner(node.node.settings)
    _recover(started)
    started.prune({})
    rootfs = _provision(started, "c1", image)

    assert tree_text(str(rootfs)) == SMALL_TREE


def test_after_a_reboot_nothing_known_means_nothing_left_children_first(
    node: Provisioner, image: str, redis_client: redis.Redis
) -> None:
    """Only the child has an image; its parent is a directory (the ancestor's RecoverNestedOnReboot, MESOS-7152)."""
    _provision(node, "pod.child", image)
    _provision(node, "other.a.b.c", image)
    _provision(node, "other.a", image)
    unmount(mounts_below(node.node.work.work_dir))
    redis_client.flushall()

    answer = _recover(node, known_container_ids=[])

    assert answer["destroyed"] == ["other.a.b.c", "other.a.b", "other.a", "other", "pod.child", "pod"]
    assert files(node.node.work.containers_dir) == []
    assert mounts_below(node.node.work.work_dir) == []
    assert keys(redis_client) == set()


def test_nested_leftovers_of_a_half_destroyed_parent_go(
    node: Provisioner, image: str, redis_client: redis.Redis
) -> None:
    """The mark is in Redis, the worker died between child and parent."""
    _provision(node, "pod", image)
    _provision(node, "pod.a", image)
    _provision(node, "pod.b.c", image)
    node.node.containers.begin_destroy(ContainerId.parse("pod"), node="n1")
    node.node.backends["overlay"].destroy(node.node.work.rootfs_paths(("pod", "a"), name="rootfs"))
    shutil.rmtree(node.node.work.container_dir(("pod", "a")))

    _recover(node)

    assert files(node.node.work.containers_dir) == []
    assert mounts_below(node.node.work.work_dir) == []
    assert keys(redis_client) == set()


def test_a_field_that_a_later_version_adds_to_a_record_is_no_damage(node: Provisioner, image: str) -> None:
    """An operator went back to this version."""
    rootfs = _provision(node, "good", image)
    path = node.node.work.record_path(("good",))
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "of_a_later_version": 1}))

    assert _recover(node)["kept"] == ["good"]
    assert tree_text(str(rootfs)) == SMALL_TREE


def test_everything_that_leaked_before_is_swept(node: Provisioner, image: str) -> None:
    """Staging, links and trash, which the ancestor left for ever or for the next prune."""
    rootfs = _provision(node, "good", image)
    store, work = node.node.store.paths, node.node.work
    (store.staging_dir / "layer").mkdir()
    (store.staging_dir / "layer" / "half").write_text("x")
    (store.staging_dir / "layer.lock").touch()
    (store.trash_dir / "layer.1").mkdir()
    (store.trash_dir / "file.2").write_text("x")
    (work.trash_dir / "container.3" / "rootfses" / "rootfs" / "work" / "work").mkdir(parents=True, mode=0o000)
    (work.trash_dir / "link.4").symlink_to(store.layers_dir)
    layers = files(store.layers_dir)

    assert _recover(node)["cleaned"] == 1

    assert [files(directory) for directory in (store.staging_dir, store.trash_dir, work.trash_dir)] == [[], [], []]
    assert files(store.layers_dir) == layers
    assert tree_text(str(rootfs)) == SMALL_TREE


def test_no_temporary_directory_is_used_for_layers_of_long_paths(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ancestor's links in $TMPDIR leaked at every crash; a mount here names descriptors, which die with it."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    directory = tmp_path / ("long" * 50)
    directory.mkdir()
    image = small_layout(tmp_path / "layout")
    with provisioner(directory, redis_url, layer_format="directory") as node:
        _provision(node, "c1", image)

        assert list(temporary.iterdir()) == []
