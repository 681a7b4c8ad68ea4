# SPDX-License-Identifier: Apache-2.0
"""Tests of the registry of nodes: who is alive, on which store, and whether its state has been recovered."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.errors import StateUnavailable
from worker.nodes import Nodes, NodeView

pytestmark = pytest.mark.redis

PREFIX = "{provisioner:test}"
VIEW = NodeView(
    name="n1",
    store_id="store-1",
    backends=("overlay", "copy"),
    layer_formats=("directory",),
    backend="overlay",
    free_bytes=1 << 40,
    version="0.1.0",
)


@pytest.fixture
def nodes(redis_client: redis.Redis) -> Nodes:
    """Nodes of an emptied server."""
    return Nodes(redis_client, PREFIX)


def recovered(nodes: Nodes, node: str) -> str:
    """Recover the node, as far as the registry is concerned, and return the token."""
    token = nodes.begin_recovery(node)
    assert nodes.mark_recovered(node, token=token)
    return token


def test_a_node_shows_what_it_says_of_itself(nodes: Nodes) -> None:
    """The latest heartbeat counts; nodes are listed by name."""
    nodes.heartbeat(replace(VIEW, name="n2"), ttl_seconds=60)
    nodes.heartbeat(VIEW, ttl_seconds=60)
    nodes.heartbeat(replace(VIEW, free_bytes=1), ttl_seconds=60)

    statuses = nodes.all()

    assert [status.view for status in statuses] == [replace(VIEW, free_bytes=1), replace(VIEW, name="n2")]
    assert all(status.is_live and not status.is_recovered for status in statuses)
    assert nodes.is_known("n1")


def test_a_node_without_heartbeat_is_gone_but_listed(nodes: Nodes) -> None:
    """It keeps the time it was last seen, until somebody forgets it or it is back."""
    nodes.heartbeat(VIEW, ttl_seconds=0)

    gone = nodes.all()[0]
    nodes.heartbeat(VIEW, ttl_seconds=60)
    back = nodes.all()[0]

    assert not gone.is_live
    assert back.is_live
    assert back.seen_ms >= gone.seen_ms > 0


def test_live_nodes_are_found_by_their_store(nodes: Nodes) -> None:
    """Nodes may share a store; one that is gone serves none."""
    nodes.heartbeat(VIEW, ttl_seconds=60)
    nodes.heartbeat(replace(VIEW, name="n2"), ttl_seconds=60)
    nodes.heartbeat(replace(VIEW, name="n3", store_id="store-2"), ttl_seconds=60)
    nodes.heartbeat(replace(VIEW, name="n4", store_id="store-2"), ttl_seconds=0)

    names = {store_id: [view.name for view in views] for store_id, views in nodes.stores().items()}

    assert names == {"store-1": ["n1", "n2"], "store-2": ["n3"]}


def test_a_heartbeat_says_whether_the_node_is_recovered(nodes: Nodes) -> None:
    """Only recover makes it so; a repeated heartbeat never does."""
    answers = [nodes.heartbeat(VIEW, ttl_seconds=60) for _ in range(2)]
    token = nodes.begin_recovery("n1")
    answers.append(nodes.heartbeat(VIEW, ttl_seconds=60))
    marks = [nodes.mark_recovered("n1", token=token) for _ in range(2)]

    assert answers == [False] * 3
    assert marks == [True] * 2
    assert nodes.heartbeat(VIEW, ttl_seconds=60)
    assert nodes.all()[0].is_recovered


def test_a_new_recovery_takes_the_mark_off(nodes: Nodes) -> None:
    """The earlier one cannot put it back."""
    nodes.heartbeat(VIEW, ttl_seconds=60)
    earlier = recovered(nodes, "n1")

    nodes.begin_recovery("n1")

    assert not nodes.all()[0].is_recovered
    assert not nodes.mark_recovered("n1", token=earlier)
    assert not nodes.all()[0].is_recovered


def test_an_emptied_server_makes_the_node_recover_again(nodes: Nodes, redis_client: redis.Redis) -> None:
    """Whether the data went after recover or under it, the mark is missing until a whole recover is done."""
    recovered(nodes, "n1")
    redis_client.flushall()
    after = nodes.heartbeat(VIEW, ttl_seconds=60)

    token = nodes.begin_recovery("n1")
    redis_client.flushall()
    is_marked = nodes.mark_recovered("n1", token=token)

    assert not after
    assert not is_marked
    assert not nodes.heartbeat(VIEW, ttl_seconds=60)


def test_a_forgotten_node_leaves_nothing(nodes: Nodes, redis_client: redis.Redis) -> None:
    """Forgetting may be repeated; a node that lives on is back, not recovered."""
    nodes.heartbeat(VIEW, ttl_seconds=60)
    recovered(nodes, "n1")

    for _ in range(2):
        nodes.forget("n1")
    keys = redis_client.keys()
    is_recovered = nodes.heartbeat(VIEW, ttl_seconds=60)

    assert keys == [b"{provisioner:test}:epoch"]
    assert not is_recovered


def test_a_status_is_a_json_document(nodes: Nodes) -> None:
    """Its keys are the view's and the cluster's own."""
    nodes.heartbeat(VIEW, ttl_seconds=60)
    status = nodes.all()[0]

    document = json.loads(json.dumps(status.to_document()))

    assert document == {
        **json.loads(VIEW.to_json()),
        "seen_ms": status.seen_ms,
        "is_live": True,
        "is_recovered": False,
    }


def test_an_unreachable_server_is_a_transient_error() -> None:
    """Whatever redis-py raises becomes StateUnavailable."""
    nowhere = Nodes(redis.Redis(unix_socket_path="/nonexistent/redis.sock", retry=Retry(NoBackoff(), 0)), PREFIX)
    calls: list[Callable[[], object]] = [
        lambda: nowhere.heartbeat(VIEW, ttl_seconds=1),
        lambda: nowhere.begin_recovery("n1"),
        lambda: nowhere.mark_recovered("n1", token="t"),  # noqa: S106 - no secret
        lambda: nowhere.is_known("n1"),
        nowhere.all,
        nowhere.stores,
        lambda: nowhere.forget("n1"),
    ]

    for call in calls:
        with pytest.raises(StateUnavailable, match=r"redis\.sock"):
            call()
