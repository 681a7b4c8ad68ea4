# SPDX-License-Identifier: Apache-2.0
"""The product as a scheduler sees it: real workers, real Redis, real registry, real mounts."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest
import redis

from tests.support.images import build_image, layer
from tests.support.layouts import write_layout
from tests.support.mounts import mounts_below
from tests.support.provisioners import SMALL_TREE, files, small_image, small_layout, tree_text
from tests.support.redis_server import RedisServer
from tests.support.registry_server import Registry
from tests.support.schedulers import Scheduler
from tests.support.tar import File
from tests.support.workers import Node

pytestmark = [pytest.mark.root, pytest.mark.redis]


def _container_keys(server: RedisServer) -> list[bytes]:
    client: redis.Redis = server.client()
    with client:
        return sorted(client.scan_iter(match="{provisioner:default}:container*"))


def test_a_scheduler_provisions_and_destroys(
    node: Node, scheduler: Scheduler, own_redis_server: RedisServer, tmp_path: Path
) -> None:
    """The main job through the queue, twice the same answer, then nothing left anywhere."""
    image = small_layout(tmp_path / "layout")

    info = scheduler.call("provision", container_id="c1", image=image)

    assert tree_text(info["rootfs"]) == SMALL_TREE
    assert scheduler.call("provision", container_id="c1", image=image) == info
    assert len(mounts_below(node.work_dir / "containers")) == 1
    assert scheduler.call("destroy", container_id="c1") is True
    assert scheduler.call("destroy", container_id="c1") is False
    pruned = scheduler.call("prune")
    assert [entry["images"] for entry in pruned["stores"]] == [[info["digest"]]]
    assert mounts_below(tmp_path) == []
    assert files(node.work_dir / "containers") == []
    for name in ("images", "references", "staging", "trash"):
        assert files(node.store_dir / name) == []
    assert _container_keys(own_redis_server) == []


@pytest.mark.parametrize(
    ("task", "keywords", "named"),
    [
        ("provision", {"container_id": "c1", "image": "alpine", "imagee": "x"}, "imagee"),
        ("provision", {"container_id": "c 1", "image": "alpine"}, "container_id"),
        ("provision", {"container_id": "c1", "image": "UPPER"}, "UPPER"),
        ("provision", {"container_id": "c1", "image": "alpine", "node": "nowhere"}, "nowhere"),
        ("provision", {"container_id": "c1"}, "image"),
        ("destroy", {}, "container_id"),
        ("prune", {"excluded_images": ["UPPER"]}, "UPPER"),
        ("pull", {"image": "oci:/nowhere"}, "/nowhere"),
        ("recover", {"known_container_ids": ["not fine"]}, "not fine"),
    ],
)
def test_a_bad_request_names_its_fault_in_the_callers_result(
    node: Node, scheduler: Scheduler, task: str, keywords: dict[str, object], named: str
) -> None:
    """A scheduler without our code sees the error's name and sentence, at once."""
    with pytest.raises(Exception, match=named) as caught:
        scheduler.call(task, **keywords)

    assert type(caught.value).__name__ in ("InvalidArgument", "ImageNotFound")
    assert files(node.work_dir / "containers") == []


def test_positional_arguments_are_refused(node: Node, scheduler: Scheduler) -> None:
    """Their order is nobody's contract."""
    result = scheduler.app.send_task("provisioner.destroy", args=["c1"], queue="provision")

    with pytest.raises(Exception, match="keyword"):
        result.get(timeout=60)


def test_work_reaches_the_node_it_belongs_to(
    node: Node, other_node: Node, scheduler: Scheduler, tmp_path: Path
) -> None:
    """Whichever queue or node a task came by, the caller's result resolves."""
    image = small_layout(tmp_path / "layout")
    first = scheduler.call("provision", container_id="a", image=image, node="n1")
    second = scheduler.call("provision", container_id="b", image=image, node="n2")
    assert (first["node"], second["node"]) == ("n1", "n2")

    child = scheduler.call("provision", container_id="b.child", image=image, queue="node.n1")
    assert child["node"] == "n2"
    assert scheduler.call("provision", container_id="a", image=image, queue="node.n2") == first
    with pytest.raises(Exception, match="on node n1"):
        scheduler.call("provision", container_id="a", image=image, node="n2")

    only_here = scheduler.call("pull", image=small_layout(tmp_path / "other", "other"), node="n2")
    verified = scheduler.call("verify", image=only_here["image"])
    assert [(entry["node"], entry["problems"]) for entry in verified["stores"]] == [("n2", [])]
    with pytest.raises(Exception, match=r"2 of 2 nodes failed: n1: ImageNotFound: .*; n2: ImageNotFound: ") as caught:
        scheduler.call("verify", image="nowhere.example/absent:1")
    assert type(caught.value).__name__ == "NodesFailed"

    recovered = scheduler.call("recover")
    assert [(entry["node"], entry["kept"]) for entry in recovered["nodes"]] == [("n1", ["a"]), ("n2", ["b.child", "b"])]
    assert scheduler.call("destroy", container_id="b", queue="node.n1") is True
    assert scheduler.call("destroy", container_id="a", queue="node.n2") is True
    pruned = scheduler.call("prune")
    assert sorted(entry["node"] for entry in pruned["stores"]) == ["n1", "n2"]
    assert len({entry["store"] for entry in pruned["stores"]}) == 2
    went = {entry["node"]: set(entry["images"]) for entry in pruned["stores"]}
    assert went == {"n1": {first["digest"]}, "n2": {first["digest"], only_here["digest"]}}
    for each in (node, other_node):
        assert mounts_below(each.work_dir) == []
        assert files(each.work_dir / "containers") == []


def test_prune_runs_once_for_nodes_that_share_a_store(
    node: Node, own_redis_server: RedisServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    """Two nodes, one store, one entry; what either node's container needs stays."""
    from tests.integration.conftest import NODE_SETTINGS  # noqa: PLC0415 - shared with the fixtures
    from tests.support.workers import running_node  # noqa: PLC0415

    image, other = small_layout(tmp_path / "layout"), small_layout(tmp_path / "other", "other")
    settings = {**NODE_SETTINGS, "PROVISIONER_STORE_DIR": str(node.store_dir)}
    with running_node("n2", tmp_path / "n2", redis_url=own_redis_server.url, **settings):
        info = scheduler.call("provision", container_id="b", image=image, node="n2")
        scheduler.call("pull", image=other, node="n1")

        pruned = scheduler.call("prune")

        assert len(pruned["stores"]) == 1
        assert info["digest"] not in pruned["stores"][0]["images"]
        assert tree_text(info["rootfs"]) == SMALL_TREE
        assert scheduler.call("destroy", container_id="b") is True


@pytest.mark.registry
def test_a_100_mb_image_from_a_registry_is_entered_with_chroot(
    node: Node, scheduler: Scheduler, registry: Registry, tmp_path: Path
) -> None:
    """Pulled over HTTP with progress in the task's state, verified, mounted, run, destroyed."""
    busybox = _static_program(tmp_path)
    noise = os.urandom(50_000_000)
    image = build_image(
        [layer(File("bin/hello", busybox, mode=0o755)), layer(File("a", noise)), layer(File("b", noise[::-1]))]
    )
    reference = registry.push("big", "latest", image)

    result = scheduler.send("provision", container_id="c1", image=reference)
    seen = _progress_until_done(result)
    info = result.get(timeout=60)

    assert (
        subprocess.run(["chroot", info["rootfs"], "/bin/hello"], check=True, capture_output=True).stdout == b"hello\n"
    )
    assert (Path(info["rootfs"]) / "a").read_bytes() == noise
    assert seen, "no progress was ever shown"
    assert all(set(each) == {"bytes_fetched", "bytes_total", "layers_done", "layers_total"} for each in seen)
    assert max(each["bytes_fetched"] for each in seen) > 0
    assert scheduler.call("destroy", container_id="c1") is True
    assert mounts_below(node.work_dir) == []


def _progress_until_done(result: object) -> list[dict[str, int]]:
    seen: list[dict[str, int]] = []
    while not result.ready():  # type: ignore[attr-defined]
        meta = result.backend.get_task_meta(result.id)  # type: ignore[attr-defined]
        if meta["status"] == "PROGRESS" and (not seen or meta["result"] != seen[-1]):
            seen.append(meta["result"])
        time.sleep(0.02)
    return seen


def _static_program(directory: Path) -> bytes:
    (directory / "hello.c").write_text('#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n')
    subprocess.run(["gcc", "-static", "-o", directory / "hello", directory / "hello.c"], check=True)
    return (directory / "hello").read_bytes()


@pytest.mark.registry
def test_two_tasks_that_want_the_same_layers_fetch_them_once(
    node: Node,
    scheduler: Scheduler,
    registry: Registry,
) -> None:
    """One request per blob in the registry's log, however many containers start at once."""
    layers = [layer(File(f"file{number}", os.urandom(2_000_000))) for number in range(3)]
    reference = registry.push("shared", "latest", build_image(layers))

    results = [scheduler.send("provision", container_id=f"c{number}", image=reference) for number in range(4)]
    infos = [result.get(timeout=90) for result in results]

    assert len({info["rootfs"] for info in infos}) == 4
    for each in layers:
        digest = each.blob("oci").digest
        assert sum(digest in path for path in registry.blob_requests()) == 1
    for number in range(4):
        assert scheduler.call("destroy", container_id=f"c{number}") is True


@pytest.mark.registry
def test_a_worker_killed_during_a_pull_loses_nothing(
    node: Node, scheduler: Scheduler, registry: Registry, own_redis_server: RedisServer
) -> None:
    """The task runs again on the restarted node, and its result resolves."""
    image = build_image([layer(File("big", os.urandom(60_000_000))), layer(File("small", b"x"))])
    reference = registry.push("killed", "latest", image)
    result = scheduler.send("provision", container_id="c1", image=reference)
    while not any(path.suffix != ".lock" for path in (node.store_dir / "staging").iterdir()):
        time.sleep(0.005)
    node.kill()
    assert any((node.store_dir / "staging").iterdir())

    node.start()
    assert files(node.store_dir / "staging") == []
    info = result.get(timeout=90)

    assert (Path(info["rootfs"]) / "small").read_bytes() == b"x"
    assert re.search(r"recovered: .*'cleaned': [1-9]", node.log)
    assert scheduler.call("destroy", container_id="c1") is True
    assert mounts_below(node.work_dir) == []
    assert _container_keys(own_redis_server) == []


def test_a_worker_killed_during_a_mount_loses_nothing(
    node: Node, scheduler: Scheduler, own_redis_server: RedisServer, tmp_path: Path
) -> None:
    """A copy takes long enough to be killed in; nothing of the half-made tree is ever shown as the rootfs."""
    files_of_it = [File(f"file{number}", os.urandom(1_000_000)) for number in range(150)]
    write_layout(tmp_path / "layout", {"latest": build_image([layer(*files_of_it, compression="none")])})
    image = f"oci:{tmp_path / 'layout'}:latest"
    scheduler.call("pull", image=image)
    result = scheduler.send("provision", container_id="c1", image=image, backend="copy")
    home = node.work_dir / "containers" / "c1" / "rootfses" / "rootfs"
    while not home.exists() or not any(path.name != "rootfs" for path in home.iterdir()):
        assert not (home / "rootfs").exists(), "the copy was over before it could be killed"
        time.sleep(0.001)
    node.kill()
    assert not (home / "rootfs").exists()

    node.start()
    info = result.get(timeout=90)

    copied = {path.name: path.read_bytes() for path in Path(info["rootfs"]).iterdir()}
    assert copied == {entry.path: entry.content for entry in files_of_it}
    assert scheduler.call("destroy", container_id="c1") is True
    assert _container_keys(own_redis_server) == []
    assert files(node.work_dir / "containers") == []


def test_containers_outlive_a_killed_worker(node: Node, scheduler: Scheduler, tmp_path: Path) -> None:
    """Mounts are the kernel's: they stay, and the restarted worker knows them."""
    info = scheduler.call("provision", container_id="c1", image=small_layout(tmp_path / "layout"))

    node.kill()
    assert tree_text(info["rootfs"]) == SMALL_TREE
    node.start()

    assert scheduler.call("recover", node="n1")["nodes"][0]["kept"] == ["c1"]
    assert scheduler.call("destroy", container_id="c1") is True


def test_redis_losing_everything_loses_no_container(
    node: Node, scheduler: Scheduler, own_redis_server: RedisServer, tmp_path: Path
) -> None:
    """The node notices by itself and shows its containers again."""
    info = scheduler.call("provision", container_id="c1", image=small_layout(tmp_path / "layout"))
    client = own_redis_server.client()
    with client:
        client.flushall()
        for _ in range(300):
            if client.exists("{provisioner:default}:container:c1"):
                break
            time.sleep(0.1)
        else:
            pytest.fail(f"the node never showed its container again:\n{node.log[-3000:]}")

    assert scheduler.call("provision", container_id="c1", image=info["image"]) == info
    assert scheduler.call("destroy", container_id="c1") is True


@pytest.mark.registry
def test_a_registry_that_is_away_is_retried(node: Node, scheduler: Scheduler, tmp_path: Path) -> None:
    """Transient: the container shows the attempts and the error, and the task succeeds once the registry is there."""
    from tests.support.ports import free_port  # noqa: PLC0415
    from tests.support.registry_server import registry_server  # noqa: PLC0415

    (tmp_path / "late").mkdir()
    with registry_server(tmp_path / "late") as early:
        early.push("late", "latest", small_image())
    port = free_port()
    result = scheduler.send("provision", container_id="c1", image=f"127.0.0.1:{port}/late:latest")
    while "Retry in" not in node.log:
        time.sleep(0.1)
    with registry_server(tmp_path / "late", port=port):
        info = result.get(timeout=90)

        assert tree_text(info["rootfs"]) == SMALL_TREE
    assert scheduler.call("destroy", container_id="c1") is True
