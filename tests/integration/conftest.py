# SPDX-License-Identifier: Apache-2.0
"""A scheduler and nodes on a Redis of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer
from tests.support.schedulers import Scheduler
from tests.support.workers import Node, running_node

NODE_SETTINGS = {
    "PROVISIONER_LEASE_SECONDS": "3",
    "PROVISIONER_HEARTBEAT_SECONDS": "1",
    "PROVISIONER_RETRY_BASE_SECONDS": "0.2",
    "PROVISIONER_VISIBILITY_TIMEOUT_SECONDS": "5",
}


@pytest.fixture
def scheduler(own_redis_server: RedisServer) -> Iterator[Scheduler]:
    """Stock Celery on the test's Redis."""
    made = Scheduler(own_redis_server.url)
    yield made
    made.close()


@pytest.fixture
def node(tmp_path: Path, own_redis_server: RedisServer) -> Iterator[Node]:
    """One running node."""
    with running_node("n1", tmp_path / "n1", redis_url=own_redis_server.url, **NODE_SETTINGS) as made:
        yield made


@pytest.fixture
def other_node(tmp_path: Path, own_redis_server: RedisServer) -> Iterator[Node]:
    """A second running node with a store of its own."""
    with running_node("n2", tmp_path / "n2", redis_url=own_redis_server.url, **NODE_SETTINGS) as made:
        yield made
