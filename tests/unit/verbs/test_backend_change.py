# SPDX-License-Identifier: Apache-2.0
"""A node whose backend setting changes: what the former one made is kept, brought back and destroyed."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
import redis

from tests.support.images import build_image, layer
from tests.support.layouts import write_layout
from tests.support.mounts import mounts_below, unmount
from tests.support.provisioners import files, keys, provisioner, tree_text
from tests.support.tar import File
from worker.errors import BackendUnsupported
from worker.linux.statfs import knows_filesystem
from worker.provisioner import Elsewhere, Provisioner

pytestmark = [pytest.mark.root, pytest.mark.redis]

Running = Callable[..., AbstractContextManager[Provisioner]]
TREE = {"etc/motd": "hello"}
BACKENDS = ["overlay", "bind", "copy"]


@pytest.fixture
def image(tmp_path: Path) -> str:
    """One layer, which every backend shows."""
    write_layout(tmp_path / "layout", {"latest": build_image([layer(File("etc/motd", b"hello"))])})
    return f"oci:{tmp_path / 'layout'}:latest"


@pytest.fixture
def running(tmp_path: Path, redis_url: str, layer_format: str) -> Running:
    """Start workers of the same node, with whatever backend is configured by then."""
    return partial(provisioner, tmp_path, redis_url, layer_format=layer_format)


def _provision(node: Provisioner, container_id: str, image: str) -> dict[str, str]:
    answer = node.provision({"container_id": container_id, "image": image})
    assert not isinstance(answer, Elsewhere)
    return answer


@pytest.mark.parametrize("old", BACKENDS)
@pytest.mark.parametrize("new", BACKENDS)
def test_rootfses_of_the_former_backend_come_back_and_are_destroyed(
    running: Running, redis_client: redis.Redis, image: str, old: str, new: str
) -> None:
    """Also after a reboot; the setting decides about new ones only."""
    with running(backend=old) as before:
        before_info = _provision(before, "old", image)
        unmount(mounts_below(before.node.work.work_dir))

        with running(backend=new) as after:
            recovered = after.recover({}, is_start=True)
            new_info = _provision(after, "new", image)

            assert isinstance(recovered, dict)
            assert recovered["kept"] + recovered["remounted"] == ["old"]
            assert (before_info["backend"], new_info["backend"]) == (old, new)
            assert _provision(after, "old", image) == before_info
            assert tree_text(before_info["rootfs"]) == tree_text(new_info["rootfs"]) == TREE
            assert after.destroy({"container_id": "old"}) is True
            assert after.destroy({"container_id": "new"}) is True
            assert files(after.node.work.containers_dir) == []
            assert mounts_below(after.node.work.work_dir) == []
            assert keys(redis_client) == set()


@pytest.mark.parametrize(("old", "new"), [("directory", "erofs"), ("erofs", "directory")])
def test_layers_of_the_former_format_stay_for_who_stands_on_them(
    tmp_path: Path, redis_url: str, image: str, old: str, new: str
) -> None:
    """They are made anew for others, in the same store, and go when nobody needs them: the ancestor kept both."""
    with provisioner(tmp_path, redis_url, layer_format=old) as former:
        first = _provision(former, "c1", image)
        with provisioner(tmp_path, redis_url, layer_format=new) as node:
            second = _provision(node, "c2", image)
            unmount(mounts_below(tmp_path / "work"))
            node.recover({}, is_start=True)

            assert (first["layer_format"], second["layer_format"]) == (old, new)
            assert tree_text(first["rootfs"]) == tree_text(second["rootfs"]) == TREE
            layers = node.node.store.paths.layers_dir
            node.destroy({"container_id": "c1"})
            node.destroy({"container_id": "c2"})
            node.prune({})
            assert list(layers.glob("*/*")) == []


@pytest.mark.parametrize("made_by", BACKENDS)
def test_what_a_backend_made_that_is_here_no_more_can_be_destroyed(
    running: Running, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture, image: str, made_by: str
) -> None:
    """A kernel without the module: the ancestor's agent refused to start, and to destroy it."""
    with running() as node:
        rootfs = node.provision({"container_id": "c1", "image": image, "backend": made_by})["rootfs"]  # type: ignore[index]
        record = node.node.work.record_path(("c1",))
        record.write_text(record.read_text().replace(f'"{made_by}"', '"gone"'))

        node.recover({}, is_start=True)

        assert "gone" in caplog.text
        assert tree_text(rootfs) == TREE
        assert node.destroy({"container_id": "c1"}) is True
        assert files(node.node.work.containers_dir) == []
        assert mounts_below(node.node.work.work_dir) == []
        assert [list(node.node.store.images.refs(digest)) for digest in node.node.store.images.digests()] == [[]]
        assert keys(redis_client) == set()


def test_a_configured_backend_that_does_not_work_keeps_the_node_from_starting(tmp_path: Path, redis_url: str) -> None:
    """No other is taken in its place, and the reason is given."""
    if knows_filesystem("aufs"):
        pytest.skip("aufs works here")
    with pytest.raises(BackendUnsupported, match="backend aufs is not supported: the kernel has no aufs"):
        with provisioner(tmp_path, redis_url, backend="aufs"):
            pass
