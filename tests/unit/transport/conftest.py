# SPDX-License-Identifier: Apache-2.0
"""Consumers of a queue, several in one process, and what publishes to it."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import redis
from kombu import Connection
from kombu.simple import SimpleQueue

from worker.transport import Transport
from worker.transport.scripts import QueueScripts

KEY = "{provisioner:test}:queue"
QUEUE = "jobs"

Open = Callable[..., SimpleQueue]


@pytest.fixture
def scripts(redis_client: redis.Redis) -> QueueScripts:
    """The transitions on an emptied server."""
    return QueueScripts(redis_client, KEY)


@pytest.fixture
def published(redis_url: str) -> Iterator[SimpleQueue]:
    """The queue as a scheduler sees it: through kombu's own transport."""
    with Connection(redis_url) as connection, connection.SimpleQueue(QUEUE) as queue:
        yield queue


@pytest.fixture
def consume(redis_url: str) -> Iterator[Open]:
    """A function that opens the queue as a consumer of its own, for transport options; closed at the end."""
    with ExitStack() as stack:

        def consume(url: str = redis_url, *, timeout_seconds: float = 60.0, max_deliveries: int = 3) -> SimpleQueue:
            options = {
                "consumer_name": uuid.uuid4().hex,
                "queue_key": KEY,
                "visibility_timeout": timeout_seconds,
                "max_deliveries": max_deliveries,
                "socket_timeout": 2.0,
            }
            connection = stack.enter_context(Connection(url, transport=Transport, transport_options=options))
            queue = stack.enter_context(connection.SimpleQueue(QUEUE))
            stack.callback(queue.channel.ledger.leave)
            return queue

        yield consume
