# SPDX-License-Identifier: Apache-2.0
"""What commands talk to."""

import pytest

from tests.unit.cli.conftest import show_node
from worker.cli.cluster import Cluster
from worker.errors import NodeUnreachable

pytestmark = pytest.mark.redis


def test_without_a_live_node_nothing_is_sent(cluster: Cluster) -> None:
    """A task nobody takes would run at a time when nobody expects it."""
    with pytest.raises(NodeUnreachable, match=r"node of cluster 'default' has no live worker"):
        cluster.check_served(None)


def test_any_live_node_serves_a_task_for_no_node_in_particular(cluster: Cluster) -> None:
    """One is enough."""
    show_node(cluster.nodes, "n1")

    cluster.check_served(None)

    assert [status.view.name for status in cluster.live_nodes()] == ["n1"]


def test_a_task_for_one_node_needs_that_node(cluster: Cluster) -> None:
    """Others cannot do it."""
    show_node(cluster.nodes, "n1")

    cluster.check_served("n1")
    with pytest.raises(NodeUnreachable, match="node n2 has no live worker"):
        cluster.check_served("n2")


def test_the_app_only_takes_json_and_bounds_every_call(cluster: Cluster) -> None:
    """What a scheduler should copy."""
    configuration = cluster.app.conf

    assert configuration.accept_content == ["json"]
    assert configuration.task_serializer == configuration.result_serializer == "json"
    assert configuration.broker_transport_options["socket_timeout"] == cluster.settings.redis_timeout_seconds
    assert configuration.redis_socket_timeout == cluster.settings.redis_timeout_seconds
