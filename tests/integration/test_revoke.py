# SPDX-License-Identifier: Apache-2.0
"""A scheduler revokes a provision, at every stage: nothing of it is left, and the node serves on."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from tests.support.images import build_image, layer
from tests.support.layouts import write_layout
from tests.support.mounts import mounts_below
from tests.support.ports import free_port, wait_until
from tests.support.provisioners import SMALL_TREE, files, small_layout, tree_text
from tests.support.proxy import Proxy, proxy_to
from tests.support.redis_server import RedisServer
from tests.support.registry_server import Registry
from tests.support.schedulers import Scheduler
from tests.support.tar import File
from tests.support.workers import Node
from worker.settings import Settings

pytestmark = [pytest.mark.root, pytest.mark.redis, pytest.mark.timeout(600)]

QUEUE = Settings().queue_key


class Cluster:
    """A scheduler, its node, and a registry whose line is as slow as a test needs it."""

    def __init__(self, scheduler: Scheduler, node: Node, server: RedisServer, proxy: Proxy, image: str) -> None:
        self.scheduler, self.node, self.proxy, self.image = scheduler, node, proxy, image
        self._server = server

    def keys(self, match: str) -> list[bytes]:
        """Return the keys in Redis."""
        with self._server.client() as client:
            return sorted(client.scan_iter(match=match))

    def undelivered(self) -> int:
        """Count the messages that somebody has, may still be handed, or nobody wants."""
        with self._server.client() as client:
            lists = [b"provision", b"node.n1", *client.scan_iter(match=f"{QUEUE}:taken:*", _type="list")]
            waiting = sum(client.zcard(f"{QUEUE}:{name}") for name in ("delayed", "dead"))
            return waiting + sum(client.llen(each) for each in lists)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait, and show the worker's log if it is in vain."""
        try:
            wait_until(condition, what, seconds=90)
        except TimeoutError:
            pytest.fail(f"{what} never came:\n{self.node.log[-6000:]}")

    def revoke(self, result: AsyncResult, *, terminate: bool) -> None:
        """Revoke, and wait until the caller is told."""
        result.revoke(terminate=terminate)
        with pytest.raises(TaskRevokedError):
            result.get(timeout=60)

    def _is_swept(self) -> bool:
        """Recover; the process that was killed may not be dead the first time."""
        self.scheduler.call("recover")
        return files(self.node.store_dir / "staging") == []

    def assert_nothing_left(self) -> None:
        """Wait for the undoing; then nothing is left at once, and after a recover and a prune nothing at all."""
        containers = self.node.work_dir / "containers"
        self.wait_for(lambda: not self.keys("{provisioner:default}:container*"), "an empty view")
        self.wait_for(lambda: files(containers) == [], "an empty directory of containers")
        self.wait_for(lambda: self.undelivered() == 0, "an empty queue")
        assert mounts_below(containers) == []
        self.wait_for(self._is_swept, "an empty staging directory")
        assert [path for path in files(self.node.store_dir / "images") if "/refs/" in path] == []
        self.scheduler.call("prune")
        for name in ("images", "references", "trash"):
            assert files(self.node.store_dir / name) == []
        assert mounts_below(self.node.work_dir) == []


@pytest.fixture
def cluster(scheduler: Scheduler, node: Node, own_redis_server: RedisServer, registry: Registry) -> Iterator[Cluster]:
    """A running node and an image of 20 MB behind the proxy."""
    image = build_image([layer(File("big", os.urandom(20_000_000))), layer(File("small", b"x"))])
    reference = registry.push("revoked", "latest", image)
    host, _, rest = reference.partition("/")
    with proxy_to(int(host.rpartition(":")[2])) as proxy:
        yield Cluster(scheduler, node, own_redis_server, proxy, f"127.0.0.1:{proxy.port}/{rest}")


def _begun(cluster: Cluster) -> bool:
    return bool(cluster.keys("{provisioner:default}:container:c1"))


@pytest.mark.registry
@pytest.mark.parametrize("terminate", [False, True])
def test_a_provision_that_waits_for_its_time_is_dropped(cluster: Cluster, *, terminate: bool) -> None:
    """Nothing was begun, and nothing is."""
    task = "provisioner.provision"
    keywords = {"container_id": "c1", "image": cluster.image}
    result = cluster.scheduler.app.send_task(task, kwargs=keywords, queue="provision", countdown=3)

    cluster.revoke(result, terminate=terminate)

    cluster.assert_nothing_left()


@pytest.mark.registry
@pytest.mark.parametrize("terminate", [False, True])
def test_a_provision_between_two_attempts_is_undone(cluster: Cluster, *, terminate: bool) -> None:
    """The registry is away; what the attempts have left in Redis goes."""
    image = f"127.0.0.1:{free_port()}/away:latest"
    result = cluster.scheduler.send("provision", container_id="pod.c1", image=image)
    cluster.wait_for(lambda: "Retry in" in cluster.node.log, "a retry")

    cluster.revoke(result, terminate=terminate)

    cluster.assert_nothing_left()


@pytest.mark.registry
def test_a_provision_that_asks_the_registry_is_undone(cluster: Cluster) -> None:
    """Killed before there is anything on disk."""
    cluster.proxy.drops_replies = True
    result = cluster.scheduler.send("provision", container_id="c1", image=cluster.image)
    cluster.wait_for(lambda: _begun(cluster), "the container")

    cluster.revoke(result, terminate=True)

    cluster.assert_nothing_left()


@pytest.mark.registry
def test_a_provision_that_pulls_is_undone(cluster: Cluster) -> None:
    """Killed in the middle of a layer; another container of the node is not touched."""
    other = cluster.scheduler.call(
        "provision", container_id="other", image=small_layout(cluster.node.work_dir.parent / "l")
    )
    cluster.proxy.bytes_per_second = 1_000_000
    result = cluster.scheduler.send("provision", container_id="pod.c1", image=cluster.image)
    staging = cluster.node.store_dir / "staging"
    cluster.wait_for(lambda: any(path.is_dir() for path in staging.iterdir()), "a layer in staging")

    cluster.revoke(result, terminate=True)

    cluster.wait_for(lambda: not (cluster.node.work_dir / "containers" / "pod").exists(), "the end of it")
    assert tree_text(other["rootfs"]) == SMALL_TREE
    assert cluster.scheduler.call("destroy", container_id="other") is True
    cluster.assert_nothing_left()


@pytest.mark.registry
def test_a_provision_that_copies_is_undone(cluster: Cluster, tmp_path: Path) -> None:
    """Killed while it fills the rootfs, recorded but not answered."""
    entries = [File(f"file{number}", os.urandom(1_000_000)) for number in range(150)]
    write_layout(tmp_path / "layout", {"latest": build_image([layer(*entries, compression="none")])})
    image = f"oci:{tmp_path / 'layout'}:latest"
    cluster.scheduler.call("pull", image=image)
    result = cluster.scheduler.send("provision", container_id="c1", image=image, backend="copy")
    home = cluster.node.work_dir / "containers" / "c1" / "rootfses" / "rootfs"
    while not home.exists() or not any(path.name != "rootfs" for path in home.iterdir()):
        assert not (home / "rootfs").exists(), "the copy was over before it could be revoked"
        time.sleep(0.001)

    cluster.revoke(result, terminate=True)

    cluster.assert_nothing_left()


@pytest.mark.registry
def test_an_answered_provision_stays(cluster: Cluster) -> None:
    """It is the caller's to destroy; revoking a duplicate of it changes nothing either."""
    info = cluster.scheduler.call("provision", container_id="c1", image=cluster.image)
    keywords = {"container_id": "c1", "image": cluster.image}
    again = cluster.scheduler.app.send_task("provisioner.provision", kwargs=keywords, queue="provision", countdown=2)

    cluster.revoke(again, terminate=True)
    cluster.wait_for(lambda: "what it began is undone" in cluster.node.log, "the undoing")
    cluster.wait_for(lambda: cluster.undelivered() == 0, "an empty queue")

    assert (Path(info["rootfs"]) / "small").read_bytes() == b"x"
    assert cluster.scheduler.call("provision", container_id="c1", image=cluster.image) == info
    assert cluster.scheduler.call("destroy", container_id="c1") is True
    cluster.assert_nothing_left()


@pytest.mark.registry
def test_the_twin_of_a_revoked_provision_gets_its_rootfs(cluster: Cluster) -> None:
    """Two requests for the same rootfs, one of them revoked while both pull."""
    cluster.proxy.bytes_per_second = 3_000_000
    first = cluster.scheduler.send("provision", container_id="c1", image=cluster.image)
    staging = cluster.node.store_dir / "staging"
    cluster.wait_for(lambda: any(path.is_dir() for path in staging.iterdir()), "a layer in staging")
    twin = cluster.scheduler.send("provision", container_id="c1", image=cluster.image)
    cluster.wait_for(lambda: cluster.node.log.count("Task provisioner.provision") >= 2, "the twin")
    time.sleep(0.5)

    cluster.revoke(first, terminate=True)
    info = twin.get(timeout=90)

    assert (Path(info["rootfs"]) / "small").read_bytes() == b"x"
    assert cluster.scheduler.call("destroy", container_id="c1") is True
    cluster.assert_nothing_left()


@pytest.mark.registry
def test_a_pull_that_is_terminated_leaves_nothing_after_the_next_recover(cluster: Cluster) -> None:
    """No container stood behind it; its pin and its staging are nobody's."""
    cluster.proxy.bytes_per_second = 1_000_000
    result = cluster.scheduler.send("pull", image=cluster.image)
    staging = cluster.node.store_dir / "staging"
    cluster.wait_for(lambda: any(path.is_dir() for path in staging.iterdir()), "a layer in staging")

    cluster.revoke(result, terminate=True)

    cluster.assert_nothing_left()


@pytest.mark.registry
def test_a_provision_that_was_forwarded_is_undone_where_it_runs(cluster: Cluster, other_node: Node) -> None:
    """The task keeps its id on the way to its parent's node, so the caller's revoke reaches it there."""
    image = small_layout(cluster.node.work_dir.parent / "parent")
    cluster.scheduler.call("provision", container_id="pod", image=image, node="n2")
    cluster.proxy.bytes_per_second = 1_000_000
    keywords = {"container_id": "pod.child", "image": cluster.image}
    result = cluster.scheduler.send("provision", queue="node.n1", **keywords)
    staging = other_node.store_dir / "staging"
    cluster.wait_for(lambda: any(path.is_dir() for path in staging.iterdir()), "a layer in the other node's staging")

    cluster.revoke(result, terminate=True)

    child = other_node.work_dir / "containers" / "pod" / "containers" / "child"
    cluster.wait_for(lambda: not child.exists(), "the end of the child")
    cluster.wait_for(lambda: not cluster.keys("{provisioner:default}:container:pod.child"), "its hash's end")
    assert cluster.scheduler.call("destroy", container_id="pod") is True
    assert files(other_node.work_dir / "containers") == []
    cluster.assert_nothing_left()


@pytest.mark.registry
def test_a_retry_that_another_node_finds_revoked_is_undone_where_it_began(cluster: Cluster, other_node: Node) -> None:
    """It stands in the common queue; whoever takes it out tells the node that has the container."""
    image = f"127.0.0.1:{free_port()}/away:latest"
    cluster.node.pause()
    result = cluster.scheduler.send("provision", container_id="c1", image=image)
    cluster.wait_for(lambda: "Retry in" in other_node.log, "a retry")
    other_node.pause()
    result.revoke()
    cluster.node.resume()
    cluster.wait_for(lambda: "what it began is undone" in cluster.node.log, "the discovery")
    assert _begun(cluster)

    other_node.resume()

    cluster.assert_nothing_left()
