# SPDX-License-Identifier: Apache-2.0
"""A real worker's metrics, scraped over HTTP: in every pool, after kills, beside another node, without Redis."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.conftest import NODE_SETTINGS
from tests.support.ports import free_port, wait_until
from tests.support.provisioners import small_layout
from tests.support.redis_server import RedisServer
from tests.support.schedulers import Scheduler
from tests.support.scraping import Page, get, scrape, scrape_until
from tests.support.workers import Node

TCP_LISTEN = "0A"
"""As /proc/net/tcp has it."""

pytestmark = [pytest.mark.root, pytest.mark.redis]


class MonitoredNode(Node):
    """A node that serves its metrics.

    Attributes:
        port: Where.
    """

    def __init__(self, name: str, directory: Path, *, redis_url: str, port: int) -> None:
        self.port = port
        super().__init__(name, directory, redis_url=redis_url, **NODE_SETTINGS, PROVISIONER_METRICS_PORT=str(port))

    def children(self) -> list[int]:
        """Return the processes of the pool."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]


@contextmanager
def monitored_node(name: str, directory: Path, redis_url: str, *options: str) -> Iterator[MonitoredNode]:
    """Run such a node for the context's time; `options` go to `celery worker`."""
    node = MonitoredNode(name, directory, redis_url=redis_url, port=free_port())
    try:
        node.start(*options)
        yield node
    finally:
        node.kill()


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_of_any_pool_counts_what_it_did(
    pool: str, tmp_path: Path, own_redis_server: RedisServer, scheduler: Scheduler
) -> None:
    """Provisions from source and store, one that fails for good, a destroy, one of nothing, and a prune."""
    image = small_layout(tmp_path / "layout")
    with monitored_node("n1", tmp_path / "n1", own_redis_server.url, "--pool", pool) as node:
        for container_id in ("c1", "c2"):
            scheduler.call("provision", container_id=container_id, image=image)
        with pytest.raises(Exception, match="not found"):
            scheduler.call("provision", container_id="c3", image=f"oci:{tmp_path / 'nowhere'}")
        for container_id in ("c1", "c1"):
            scheduler.call("destroy", container_id=container_id)
        held = scrape_until(node.port, lambda page: page.verbs("destroy") == {"done": 1, "absent": 1}, "the destroys")
        scheduler.call("destroy", container_id="c2")
        scheduler.call("prune", node="n1")
        page = scrape_until(node.port, lambda page: page.verbs("prune") == {"done": 1}, "the prune")

    assert page.verbs("provision") == {"done": 2, "permanent": 1}
    assert page.verbs("recover") == {"done": 1}
    assert page.value("errors_total", outcome="permanent", error="ImageNotFound") == 1
    assert page.value("verb_seconds_count", verb="provision") == 2
    assert (page.value("image_lookups_total", result="miss"), page.value("image_lookups_total", result="hit")) == (1, 1)
    assert page.value("image_pull_seconds_count") == 1
    assert page.value("fetched_bytes_total") > 0
    assert page.value("lock_wait_seconds_count", mode="shared", result="granted") >= 4
    assert page.value("lock_wait_seconds_count", mode="exclusive", result="granted") == 1
    assert page.value("prune_exclusive_seconds_count") == 1
    assert (page.value("pruned_images_total"), page.value("pruned_layers_total")) == (1, 2)
    assert page.value("lost_observations_total") == 0
    _check_gauges(held, page)


def _check_gauges(held: Page, pruned: Page) -> None:
    """One container and its image were there, and are gone."""
    assert held.value("info", cluster="default", node="n1", version="0.1.0") == 1
    assert held.value("cluster_containers", state="provisioned") == 1
    assert held.value("node_containers") == 1
    assert {state: held.value("cluster_messages", state=state) for state in ("waiting", "delayed", "dead")} == {
        "waiting": 0,
        "delayed": 0,
        "dead": 0,
    }
    assert held.value("cluster_nodes", state="live") == 1
    assert held.value("store_images") == 1
    assert held.value("store_layers", format="erofs") + held.value("store_layers", format="directory") == 2
    assert held.value("filesystem_free_bytes", directory="store") > 0
    assert pruned.value("node_containers") == 0
    assert pruned.value("store_images") == 0
    assert (
        pruned.value("store_layer_bytes", format="erofs") + pruned.value("store_layer_bytes", format="directory") == 0
    )


def test_a_killed_child_takes_no_count_with_it(
    tmp_path: Path, own_redis_server: RedisServer, scheduler: Scheduler
) -> None:
    """All children are killed after each provision; the worker makes others, and no number ever goes down."""
    image = small_layout(tmp_path / "layout")
    with monitored_node("n1", tmp_path / "n1", own_redis_server.url) as node:
        for number in range(1, 4):
            scheduler.call("provision", container_id=f"c{number}", image=image)
            _scrape_provisioned(node, number)
            killed = node.children()
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: len(set(node.children()) - set(killed)) >= 2, "new children")  # noqa: B023 - at once
        page = _scrape_provisioned(node, 3)

        assert page.value("image_lookups_total", result="hit") == 2
        for number in range(1, 4):
            scheduler.call("destroy", container_id=f"c{number}")


def _scrape_provisioned(node: MonitoredNode, number: int) -> Page:
    return scrape_until(node.port, lambda page: page.verbs("provision") == {"done": number}, f"provision {number}")


def test_a_child_has_neither_the_port_nor_a_thread_of_the_page(tmp_path: Path, own_redis_server: RedisServer) -> None:
    """So one that outlives a killed worker does not keep the port from the next, which listens there at once."""
    with monitored_node("n1", tmp_path / "n1", own_redis_server.url) as node:
        children = node.children()

        assert len(listening_sockets(node.pid)) == 1
        assert [listening_sockets(pid) for pid in children] == [set()] * len(children)
        assert [len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in children] == [1] * len(children)
        node.kill()
        node.start()
        assert scrape(node.port).verbs("recover") == {"done": 1}


def listening_sockets(pid: int) -> set[str]:
    """Return the sockets on which a process listens over TCP."""
    lines = Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    listening = {f"socket:[{fields[9]}]" for fields in map(str.split, lines) if fields[3] == TCP_LISTEN}
    return listening & {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}


def test_two_nodes_on_one_host_have_a_port_each(
    tmp_path: Path, own_redis_server: RedisServer, scheduler: Scheduler
) -> None:
    """Each counts its own work and tells of the same cluster; one that finds its port taken says so and ends."""
    image = small_layout(tmp_path / "layout")
    with (
        monitored_node("n1", tmp_path / "n1", own_redis_server.url) as first,
        monitored_node("n2", tmp_path / "n2", own_redis_server.url, "--pool", "threads") as second,
    ):
        for container_id, name in (("c1", "n1"), ("c2", "n1"), ("c3", "n2")):
            scheduler.call("provision", container_id=container_id, image=image, node=name, queue=f"node.{name}")
        pages = [_scrape_provisioned(first, 2), _scrape_provisioned(second, 1)]
        third = MonitoredNode("n3", tmp_path / "n3", redis_url=own_redis_server.url, port=first.port)
        with pytest.raises(RuntimeError, match="PROVISIONER_METRICS_PORT"):
            third.start()
        for container_id in ("c1", "c2", "c3"):
            scheduler.call("destroy", container_id=container_id)

    assert [page.value("node_containers") for page in pages] == [2, 1]
    assert [page.value("cluster_containers", state="provisioned") for page in pages] == [3, 3]
    assert [page.value("cluster_nodes", state="live") for page in pages] == [2, 2]


def test_the_page_outlives_redis(tmp_path: Path, own_redis_server: RedisServer) -> None:
    """What Redis would tell is left out, and that it does not is told."""
    with monitored_node("n1", tmp_path / "n1", own_redis_server.url) as node:
        before = scrape(node.port)
        own_redis_server.kill()
        after = scrape(node.port)

    assert (before.value("redis_up"), after.value("redis_up")) == (1, 0)
    assert "provisioner_node_containers" in before.names
    assert "provisioner_node_containers" not in after.names
    assert after.verbs("recover") == {"done": 1}


def test_nothing_on_the_page_names_a_container_or_an_image(
    tmp_path: Path, own_redis_server: RedisServer, scheduler: Scheduler
) -> None:
    """Neither after a success nor in what an error said."""
    image = small_layout(tmp_path / "salary-report")
    with monitored_node("n1", tmp_path / "n1", own_redis_server.url) as node:
        scheduler.call("provision", container_id="patient-17", image=image)
        with pytest.raises(Exception, match="hunter2"):
            scheduler.call("provision", container_id="patient-18", image=f"oci:{tmp_path / 'hunter2'}")
        page = scrape_until(node.port, lambda page: page.verbs("provision") == {"done": 1, "permanent": 1}, "both")
        scheduler.call("destroy", container_id="patient-17")

    assert not {word for word in ("patient", "salary", "hunter2", "layout") if word in page.text}


def test_without_a_port_nobody_listens(tmp_path: Path, own_redis_server: RedisServer, node: Node) -> None:
    """The default."""
    assert listening_sockets(node.pid) == set()


def test_other_paths_are_not_found_and_openmetrics_is_spoken(tmp_path: Path, own_redis_server: RedisServer) -> None:
    """Prometheus asks for OpenMetrics first."""
    with monitored_node("n1", tmp_path / "n1", own_redis_server.url, "--pool", "solo") as node:
        missing, _, _ = get(node.port, "/")
        status, content_type, text = get(node.port, accept="application/openmetrics-text;version=1.0.0")

    assert missing == 404
    assert status == 200
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")
