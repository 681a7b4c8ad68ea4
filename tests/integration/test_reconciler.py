# SPDX-License-Identifier: Apache-2.0
"""Work that its task left behind is taken up again, and what waits for a node that is gone is failed or moved."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.result import AsyncResult

from tests.integration.conftest import NODE_SETTINGS
from tests.support.mounts import mounts_below, unmount
from tests.support.provisioners import SMALL_TREE, files, keys, provisioner, small_layout, tree_text
from tests.support.redis_server import RedisServer
from tests.support.schedulers import Scheduler
from tests.support.workers import REPOSITORY_DIR, Node, running_node
from worker.container_id import ContainerId
from worker.containers import Containers, ContainerState
from worker.errors import RegistryUnavailable
from worker.provisioner import Provisioner
from worker.verbs.orphans import Orphan, claim_orphans

pytestmark = [pytest.mark.root, pytest.mark.redis]

C1 = ContainerId.parse("c1")
QUIET_SECONDS = 0.1


@pytest.fixture
def image(tmp_path: Path) -> str:
    """The reference of a small image."""
    return small_layout(tmp_path / "layout")


@pytest.fixture
def node(tmp_path: Path, redis_url: str) -> Iterator[Provisioner]:
    """A node."""
    with provisioner(tmp_path, redis_url) as made:
        yield made


@pytest.fixture
def node_n1(tmp_path: Path, own_redis_server: RedisServer) -> Iterator[Node]:
    """A running worker; what stays mounted because the test killed it is unmounted at the end."""
    with running_node("n1", tmp_path / "n1", redis_url=own_redis_server.url, **NODE_SETTINGS) as made:
        yield made
    unmount(mounts_below(tmp_path))


def begin(node: Provisioner, container_id: ContainerId, image: str, **more: Any) -> str:
    """Begin a provision that nobody will finish, and return its generation."""
    request = json.dumps({"container_id": str(container_id), "image": image, **more})
    outcome = node.node.containers.begin_provision(
        container_id, name=more.get("name", "rootfs"), image=image, node="n1", request=request
    )
    return outcome.generation


def claims_for(node: Provisioner, seconds: float, happens: Callable[[], object] = lambda: None) -> list[Orphan]:
    """Return what is claimed within this time, while something happens again and again."""
    claimed: list[Orphan] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        happens()
        claimed += claim_orphans(node.node.containers, node="n1", quiet_seconds=QUIET_SECONDS)
        time.sleep(0.01)
    return claimed


def first_claim(node: Provisioner) -> Orphan:
    """Return what is claimed first."""
    while not (claimed := claim_orphans(node.node.containers, node="n1", quiet_seconds=QUIET_SECONDS)):
        time.sleep(0.01)
    assert len(claimed) == 1
    return claimed[0]


def test_a_provision_without_a_task_is_asked_for_as_it_was(node: Provisioner, image: str) -> None:
    """Every name that is pending, with all its keywords; then not again for twice the time."""
    generation = begin(node, C1, image, cached=False)

    orphan = first_claim(node)
    at = node.node.containers.now_ms()

    keywords = {"container_id": "c1", "image": image, "cached": False}
    assert orphan == Orphan(verb="provision", keywords=keywords, generation=generation)
    first_claim(node)
    assert node.node.containers.now_ms() - at >= 2 * QUIET_SECONDS * 1000


def test_what_a_live_provision_keeps_is_what_it_was_asked(node: Provisioner, image: str) -> None:
    """The verb itself writes down its keywords, defaults included."""
    asked: list[dict[str, str]] = []
    real = node.node.containers.finish_provision

    def looks(container_id: ContainerId, **keywords: Any) -> bool:
        view = node.node.containers.get(container_id)
        asked.append(dict(view.requests) if view is not None else {})
        return real(container_id, **keywords)

    node.node.containers.finish_provision = looks  # type: ignore[method-assign, assignment]
    answer = node.provision({"container_id": "c1", "image": image, "read_only": True})

    again = json.loads(asked[0]["rootfs"])
    assert (again["image"], again["read_only"], again["cached"], again["node"]) == (image, True, True, None)
    assert node.provision(again) == answer


def test_signs_of_work_keep_it_from_being_claimed(node: Provisioner, image: str) -> None:
    """A pull that notes that it is alive, and a failure whose retry is still to come."""
    generation = begin(node, C1, image)
    containers = node.node.containers

    assert claims_for(node, 4 * QUIET_SECONDS, lambda: containers.note_alive(C1, generation=generation)) == []
    containers.note_failure(C1, generation=generation, error="away", retry_in_seconds=1.0)
    assert claims_for(node, 4 * QUIET_SECONDS) == []

    assert first_claim(node).verb == "provision"


def test_other_nodes_and_what_is_at_rest_are_left_alone(node: Provisioner, image: str) -> None:
    """Provisioned, mere parents, and what belongs to others."""
    node.provision({"container_id": "pod.a", "image": image})
    elsewhere = ContainerId.parse("c2")
    node.node.containers.begin_provision(elsewhere, name="rootfs", image=image, node="n2", request="{}")

    assert claims_for(node, 3 * QUIET_SECONDS) == []

    node.node.containers.begin_destroy(elsewhere, node="n2")
    node.node.containers.finish_destroy(elsewhere)


def test_a_destroy_without_a_task_is_asked_for_once_for_the_whole_tree(node: Provisioner, image: str) -> None:
    """The outermost container that is marked takes those nested in it along."""
    for container_id in ("pod", "pod.a", "pod.a.b"):
        node.provision({"container_id": container_id, "image": image})
    node.node.containers.begin_destroy(ContainerId.parse("pod"), node="n1")

    orphan = first_claim(node)

    assert (orphan.verb, orphan.keywords) == ("destroy", {"container_id": "pod"})
    node.take_up(asdict(orphan))
    assert files(node.node.work.containers_dir) == []
    assert claims_for(node, 3 * QUIET_SECONDS) == []


def test_work_is_finished_or_undone_whichever_it_comes_to(
    node: Provisioner, image: str, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """What can be provisioned is; what cannot leaves nothing."""
    begin(node, C1, image)
    node.take_up(asdict(first_claim(node)))
    assert node.node.containers.get(C1).state is ContainerState.PROVISIONED  # type: ignore[union-attr]
    node.destroy({"container_id": "c1"})

    begin(node, C1, f"oci:{tmp_path}/none:latest")
    with pytest.raises(Exception, match="none"):
        node.take_up(asdict(first_claim(node)))
    assert keys(redis_client) == set()


def test_what_is_taken_up_too_late_leaves_the_next_container_alone(node: Provisioner, image: str) -> None:
    """The task was not gone after all: it came first, and another container of this id was provisioned since."""
    node.provision({"container_id": "c1", "image": image})
    node.node.containers.begin_destroy(C1, node="n1")
    destroy = first_claim(node)
    assert node.destroy({"container_id": "c1"}) is True
    info = node.provision({"container_id": "c1", "image": image})

    node.take_up(asdict(destroy))

    assert node.provision({"container_id": "c1", "image": image}) == info
    assert tree_text(info["rootfs"]) == SMALL_TREE  # type: ignore[index]


def test_a_provision_that_is_taken_up_too_late_makes_nothing(
    node: Provisioner, image: str, redis_client: redis.Redis
) -> None:
    """Its task came first, and the container was destroyed since."""
    begin(node, C1, image)
    provision = first_claim(node)
    node.provision({"container_id": "c1", "image": image})
    assert node.destroy({"container_id": "c1"}) is True

    node.take_up(asdict(provision))

    assert keys(redis_client) == set()
    assert files(node.node.work.containers_dir) == []


def test_retries_that_never_come_are_not_waited_for(node: Provisioner, image: str) -> None:
    """The time of the retry has passed, and nobody came."""
    generation = begin(node, C1, image)
    error = RegistryUnavailable(registry="r", reason="away")
    node.node.containers.note_failure(C1, generation=generation, error=str(error), retry_in_seconds=0.05)

    assert first_claim(node).verb == "provision"


def test_a_worker_takes_it_up_by_itself(
    scheduler: Scheduler, tmp_path: Path, own_redis_server: RedisServer, image: str
) -> None:
    """Its task was purged from the queue before anybody took it; the container is there in the end."""
    settings = {**NODE_SETTINGS, "PROVISIONER_RECONCILE_SECONDS": "1"}
    with (
        own_redis_server.client() as client,
        running_node("n1", tmp_path / "n1", redis_url=own_redis_server.url, **settings) as worker,
    ):
        containers = Containers(client, "{provisioner:default}")
        request = json.dumps({"container_id": "c1", "image": image})
        containers.begin_provision(C1, name="rootfs", image=image, node="n1", request=request)

        while (view := containers.get(C1)) is None or view.state is not ContainerState.PROVISIONED:
            time.sleep(0.05)

        assert "is asked for again" in worker.log
        assert tree_text(json.loads(view.infos["rootfs"])["rootfs"]) == SMALL_TREE
        assert scheduler.call("destroy", container_id="c1") is True


def run_forget(own_redis_server: RedisServer, *arguments: str, **settings: str) -> tuple[int, str]:
    """Run the command in a process of its own, as an operator does."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PROVISIONER_")}
    done = subprocess.run(
        [sys.executable, "-c", "from worker.cli.entry import main; main()", *arguments],
        env={**env, "PROVISIONER_REDIS_URL": own_redis_server.url, **settings},
        cwd=REPOSITORY_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def killed_with_work(node: Node, scheduler: Scheduler, image: str) -> dict[str, AsyncResult]:
    """Leave a node dead that has a container, with tasks waiting for it: queued, for a time to come, and unreadable."""
    scheduler.call("provision", container_id="c1", image=image, node="n1")
    node.kill()
    results = {
        "destroy": scheduler.send("destroy", queue="node.n1", container_id="c1"),
        "provision": scheduler.send("provision", queue="node.n1", container_id="c2", image=image, node="n1"),
    }
    scheduler.app.connection_for_write().default_channel.client.lpush("node.n1", b"\xffnot a message")
    return results


@pytest.mark.parametrize("is_moved", [False, True], ids=["failed", "moved"])
def test_what_waits_for_a_node_that_is_gone_is_settled(
    node_n1: Node, scheduler: Scheduler, own_redis_server: RedisServer, image: str, tmp_path: Path, *, is_moved: bool
) -> None:
    """With one command; who waits is told, or answered by another node. What nobody can read stays where it is."""
    results = killed_with_work(node_n1, scheduler, image)
    code, text = run_forget(own_redis_server, "forget", "n1")
    assert (code, "is alive" in text) == (1, True)
    while "gone" not in (text := run_forget(own_redis_server, "nodes")[1]):
        time.sleep(0.2)
    assert re.search(r"n1 .* 3 ", text.replace("│", " ")) is not None

    code, text = run_forget(own_redis_server, "forget", "n1", "--json", *(["--move"] if is_moved else []))

    assert code == 0, text
    document = json.loads(text)
    assert document["containers"] == ["c1"]
    outcome = "moved" if is_moved else "failed"
    assert sorted(task["outcome"] for task in document["tasks"]) == sorted([outcome, outcome, "left"])
    assert run_forget(own_redis_server, "ps", "--json")[1].count("c1") == 0
    if not is_moved:
        for result in results.values():
            with pytest.raises(Exception, match="node n1 is gone"):
                result.get(timeout=30)
        return
    with running_node("n2", tmp_path / "n2", redis_url=own_redis_server.url, **NODE_SETTINGS):
        assert results["destroy"].get(timeout=60) is False
        assert results["provision"].get(timeout=60)["node"] == "n2"
        assert scheduler.call("destroy", container_id="c2") is True


def test_a_node_that_comes_back_shows_what_it_has(
    node_n1: Node, scheduler: Scheduler, own_redis_server: RedisServer, image: str
) -> None:
    """Forgetting it took nothing from its disk."""
    info = scheduler.call("provision", container_id="c1", image=image)
    node_n1.kill()
    while run_forget(own_redis_server, "forget", "n1")[0] != 0:
        time.sleep(0.2)

    node_n1.start()

    assert scheduler.call("provision", container_id="c1", image=image) == info
    assert scheduler.call("destroy", container_id="c1") is True


def test_a_node_that_is_gone_keeps_nothing_in_a_store_once_that_is_said(
    node_n1: Node, scheduler: Scheduler, own_redis_server: RedisServer, image: str, tmp_path: Path
) -> None:
    """Until then what its containers need stays for it."""
    info = scheduler.call("provision", container_id="c1", image=image)
    node_n1.kill()
    while run_forget(own_redis_server, "forget", "n1")[0] != 0:
        time.sleep(0.2)
    settings = {**NODE_SETTINGS, "PROVISIONER_STORE_DIR": str(node_n1.store_dir)}
    with running_node("n2", tmp_path / "n2", redis_url=own_redis_server.url, **settings):
        assert scheduler.call("prune", node="n2")["stores"][0]["images"] == []
        node_n1.start()
        node_n1.kill()
        while (answer := run_forget(own_redis_server, "forget", "n1", "--release", "--json", **settings))[0] != 0:
            time.sleep(0.2)

        assert json.loads(answer[1])["released"] == 1
        assert scheduler.call("prune", node="n2")["stores"][0]["images"] == [info["digest"]]


def test_there_must_be_something_to_forget(own_redis_server: RedisServer) -> None:
    """A misspelt name is an error."""
    code, text = run_forget(own_redis_server, "forget", "nobody")

    assert code == 1
    assert "there is no node nobody" in text
