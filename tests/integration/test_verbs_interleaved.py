# SPDX-License-Identifier: Apache-2.0
"""A verb is stopped at each of its steps in turn, others act meanwhile, and it goes on as if nothing had happened.

That is what a paused virtual machine, a swapped-out worker or a redelivered message does. Its lease has lapsed when it
goes on; its flocks have not. Afterwards every container that was answered for and not destroyed since has its layers
and its ref, also after a prune and a recover, and a destroy leaves nothing.
"""

import contextlib
import json
import os
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.integration.chaos.pausing import paused_at
from tests.support.layouts import write_layout
from tests.support.mounts import mounts_below
from tests.support.provisioners import files, keys, small_image, tree_text
from worker.container_id import ContainerId
from worker.container_view import ContainerState
from worker.errors import LockTimeout, ProvisionerError, TransientError, ViewIncomplete
from worker.image import LayerFormat
from worker.oci.digest import Digest
from worker.provisioner import Elsewhere, Provisioner
from worker.runtime import make_provisioner
from worker.settings import Settings
from worker.store.images import RefOwner

pytestmark = [pytest.mark.root, pytest.mark.redis, pytest.mark.timeout(600)]

STRIDE = int(os.environ.get("CHAOS_STRIDE", "25"))
_PATIENCE_SECONDS = 0.3


@dataclass
class Cluster:
    """Two nodes that share a store, and how to make more workers of the first."""

    directory: Path
    redis_url: str
    client: redis.Redis
    layout_dir: Path = field(init=False)

    def __post_init__(self) -> None:
        self.layout_dir = self.directory / "layout"
        self.point_at("hello")
        self.here = self.make()
        self.far = self.make("n2")

    @property
    def image(self) -> str:
        """The reference of the image in use."""
        return f"oci:{self.layout_dir}:latest"

    def point_at(self, text: str) -> None:
        """Let the reference lead to the image of this text."""
        write_layout(self.layout_dir, {"latest": small_image(text)})

    def make(self, node: str = "n1") -> Provisioner:
        """Return a worker's provisioner."""
        return make_provisioner(
            Settings(
                redis_url=self.redis_url,
                node=node,
                store_dir=self.directory / "store",
                work_dir=self.directory / node,
                lease_seconds=1.0,
                lock_timeout_seconds=_PATIENCE_SECONDS,
                heartbeat_seconds=0.02,
            )
        )

    def provision(self, node: Provisioner | None = None, **more: Any) -> dict[str, Any]:
        """Provision the one container of these tests."""
        answer = (node or self.here).provision({"container_id": "pod.c1", "image": self.image, **more})
        assert not isinstance(answer, Elsewhere)
        return answer

    def lapse(self) -> None:
        """Let every lease lapse."""
        for key in self.client.scan_iter(match="*:lock:*:held:*"):
            self.client.delete(key)

    def prune(self) -> None:
        """Prune from the other node, which waits for nobody here."""
        self.lapse()
        self.far.prune({})

    def prune_in_the_end(self) -> None:
        """Prune when nobody is in the way but a quarantine."""
        for _ in range(10):
            with contextlib.suppress(LockTimeout):
                return self.prune()
        raise AssertionError("the lock is not to be had")

    def destroy_in_the_end(self) -> None:
        """Destroy the one container, once Redis is believed again."""
        for _ in range(100):
            with contextlib.suppress(ViewIncomplete):
                self.here.destroy({"container_id": "pod.c1"})
                return
            time.sleep(0.01)
        raise AssertionError("Redis is never believed again")

    def recover(self) -> None:
        """Recover this node."""
        self.lapse()
        self.here.recover({})


Meanwhile = Callable[[Cluster], dict[str, Any] | None]


def _duplicate(cluster: Cluster) -> dict[str, Any] | None:
    return cluster.provision()


def _duplicate_then_prune(cluster: Cluster) -> dict[str, Any] | None:
    answer = cluster.provision()
    cluster.prune()
    return answer


def _duplicate_then_recover(cluster: Cluster) -> dict[str, Any] | None:
    answer = cluster.provision()
    cluster.recover()
    return answer


def _destroy(cluster: Cluster) -> None:
    cluster.here.destroy({"container_id": "pod"})


def _replace(cluster: Cluster) -> dict[str, Any] | None:
    cluster.here.destroy({"container_id": "pod.c1"})
    return cluster.provision()


def _move(cluster: Cluster) -> dict[str, Any] | None:
    cluster.point_at("moved")
    return cluster.provision(cached=False)


def _forget(cluster: Cluster) -> None:
    cluster.client.flushall()
    cluster.recover()


def _forget_and_duplicate(cluster: Cluster) -> dict[str, Any] | None:
    cluster.client.flushall()
    return cluster.provision()


def _prune(cluster: Cluster) -> None:
    cluster.prune()


def _recover(cluster: Cluster) -> None:
    cluster.recover()


MEANWHILE: tuple[Meanwhile, ...] = (
    _duplicate,
    _duplicate_then_prune,
    _duplicate_then_recover,
    _destroy,
    _replace,
    _move,
    _forget,
    _forget_and_duplicate,
    _prune,
    _recover,
)


class _Other(threading.Thread):
    """Others' work; what they are refused for now is no matter."""

    def __init__(self, act: Meanwhile, cluster: Cluster) -> None:
        super().__init__()
        self._act = act
        self._cluster = cluster
        self.answer: dict[str, Any] | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.answer = self._act(self._cluster)
        except ProvisionerError as error:
            self.error = error


def _assert_alive(cluster: Cluster, info: dict[str, Any]) -> None:
    """The rootfs is complete, its layers and its ref are in the store."""
    store = cluster.here.node.store
    text = "moved" if info["digest"] == small_image("moved").digest else "hello"
    assert tree_text(info["rootfs"]) == {"etc/kept": text, "etc/motd": text, "new": text}
    layers = [Digest.parse(layer) for layer in info["layers"]]
    assert store.layers.missing(layers, layer_format=LayerFormat(info["layer_format"])) == ()
    owner = RefOwner(node=info["node"], container_id=info["container_id"], name=info["name"])
    assert store.images.ref_path(Digest.parse(info["digest"]), owner).exists(), "the ref is gone"


def _assert_nothing_left(cluster: Cluster) -> None:
    """No container, mount, image, layer, ref or key, and nothing half made."""
    node = cluster.here.node
    paths = node.store.paths
    assert mounts_below(node.work.work_dir) == []
    for directory in (node.work.containers_dir, node.work.trash_dir, paths.images_dir, paths.references_dir):
        assert files(directory) == []
    for directory in (paths.staging_dir, paths.trash_dir):
        assert files(directory) == []
    assert list(node.store.layers.committed()) == []
    assert keys(cluster.client) == set()


@pytest.fixture
def cluster(tmp_path: Path, redis_url: str, redis_client: redis.Redis) -> Iterator[Cluster]:
    """Two nodes; at the end their containers are destroyed."""
    made = Cluster(tmp_path, redis_url, redis_client)
    yield made
    made.lapse()
    made.here.recover({"known_container_ids": []}, is_start=True)


def _provisions(cluster: Cluster, answer_path: Path) -> None:
    try:
        answer = cluster.provision(cluster.make())
    except BaseException:
        answer_path.write_text(traceback.format_exc())
        raise
    answer_path.write_text(json.dumps(answer))


@dataclass(frozen=True)
class _Outcome:
    """How one step went.

    Attributes:
        alive: What was answered last and is not destroyed.
        is_destroyed: Whether the stopped provision lost to a destroy, so that nothing may be left of it.
        story: What a failure's message begins with.
    """

    alive: list[dict[str, Any]]
    is_destroyed: bool
    story: str


def _stopped_at(step: int, cluster: Cluster, meanwhile: Meanwhile) -> _Outcome | None:
    """Stop a provision at this step while the others act; None if it has no such step."""
    answer_path = cluster.directory / "answer.json"
    answer_path.unlink(missing_ok=True)
    paused = paused_at(step, lambda: _provisions(cluster, answer_path))
    if paused is None:
        return None
    other = _Other(meanwhile, cluster)
    other.start()
    other.join(_PATIENCE_SECONDS)
    status = paused.resume()
    other.join()
    text = answer_path.read_text()
    alive = [json.loads(text)] if status == 0 else [other.answer] if other.answer else []
    if meanwhile is _destroy and not cluster.here.node.work.record_path(("pod", "c1")).exists():
        alive = []  # It was destroyed after it had been provisioned.
    is_destroyed = meanwhile is _destroy and other.error is None and not alive
    return _Outcome(alive, is_destroyed, f"stopped at step {step}, others: {other.error!r}, then {text[-400:]}")


def _assert_consistent(cluster: Cluster, outcome: _Outcome) -> None:
    """Prune, recover and prune again take nothing that is needed, and leave nothing once it is destroyed."""
    for act in (lambda: None, cluster.prune_in_the_end, cluster.recover, cluster.prune_in_the_end):
        act()
        for info in outcome.alive:
            _assert_alive(cluster, info)
    if outcome.is_destroyed:
        _assert_nothing_left(cluster)
    cluster.destroy_in_the_end()
    cluster.prune_in_the_end()
    _assert_nothing_left(cluster)


@pytest.mark.parametrize("is_warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("meanwhile", MEANWHILE, ids=lambda act: act.__name__.strip("_"))
def test_a_provision_stopped_anywhere(cluster: Cluster, meanwhile: Meanwhile, *, is_warm: bool) -> None:
    """Whatever happens meanwhile, an answered rootfs is whole and stays it, and nothing is left of one destroyed."""
    for step in range(1 + random.Random(meanwhile.__name__).randrange(STRIDE), 10_000, STRIDE):
        cluster.point_at("hello")
        if is_warm:
            cluster.here.pull({"image": cluster.image})
        outcome = _stopped_at(step, cluster, meanwhile)
        if outcome is None:
            break
        try:
            _assert_consistent(cluster, outcome)
        except AssertionError as error:
            raise AssertionError(f"{outcome.story}: {error}") from error
    assert step > STRIDE


def _destroy_and_replace(cluster: Cluster) -> dict[str, Any]:
    cluster.here.destroy({"container_id": "pod.c1"})
    return cluster.provision()


def test_a_destroy_stopped_anywhere_leaves_the_next_container_alone(cluster: Cluster) -> None:
    """Once it has marked what it destroys: another destroy was faster, and the id is in use again."""
    marked = 0
    for step in range(1, 10_000, max(1, STRIDE // 5)):
        cluster.provision()
        paused = paused_at(step, lambda: cluster.make().destroy({"container_id": "pod.c1"}))
        if paused is None:
            break
        view = cluster.here.node.containers.get(ContainerId.parse("pod.c1"))
        is_marked = view is None or view.state is ContainerState.DESTROYING
        marked += is_marked
        cluster.lapse()
        other = _Other(_destroy_and_replace, cluster)
        other.start()
        other.join(_PATIENCE_SECONDS)
        paused.resume()
        other.join()
        if is_marked and other.answer is not None:
            cluster.prune_in_the_end()
            _assert_alive(cluster, other.answer)
        cluster.destroy_in_the_end()
        cluster.prune_in_the_end()
        _assert_nothing_left(cluster)
    assert marked > 3


def _tried_until_answered(cluster: Cluster) -> dict[str, Any]:
    """Provision as a task does, which is tried again after what may pass."""
    for _ in range(40):
        with contextlib.suppress(TransientError):
            return cluster.provision()
    raise AssertionError("the provision is never answered")


def _recover_and_prune(cluster: Cluster) -> None:
    node = cluster.make()
    node.recover({})
    node.prune({})


@pytest.mark.parametrize(
    "clean_up", [lambda cluster: cluster.make("n2").prune({}), _recover_and_prune], ids=["prune", "recover"]
)
@pytest.mark.parametrize("is_leftover", [True, False], ids=["ref left", "no ref"])
def test_a_clean_up_stopped_anywhere(
    cluster: Cluster, clean_up: Callable[[Cluster], object], *, is_leftover: bool
) -> None:
    """Its lease lapsed, a provision comes for the image it is about to remove, or whose stale ref it looked at."""
    for step in range(1, 10_000, max(1, STRIDE // 5)):
        pulled = cluster.here.pull({"image": cluster.image})
        assert not isinstance(pulled, Elsewhere)
        if is_leftover:
            owner = RefOwner(node="n1", container_id="pod.c1", name="rootfs")
            cluster.here.node.store.images.keep(Digest.parse(pulled["digest"]), owner)
        paused = paused_at(step, lambda: clean_up(cluster))
        if paused is None:
            break
        cluster.lapse()
        other = _Other(_tried_until_answered, cluster)
        other.start()
        other.join(_PATIENCE_SECONDS)
        paused.resume()
        other.join()
        assert other.answer is not None, other.error
        _assert_consistent(cluster, _Outcome([other.answer], is_destroyed=False, story=f"stopped at step {step}"))
    assert step > STRIDE
