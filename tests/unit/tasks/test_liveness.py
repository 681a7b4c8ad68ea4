# SPDX-License-Identifier: Apache-2.0
"""The sign of life reaches the index that kombu goes by."""

import time

import pytest
import redis
from kombu import Connection

from tasks.liveness import renew

pytestmark = pytest.mark.redis


def test_an_unacknowledged_message_is_renewed_and_a_lost_one_is_not(redis_url: str, redis_client: redis.Redis) -> None:
    """Fails when kombu keeps its deliveries elsewhere."""
    with Connection(redis_url) as connection, connection.SimpleQueue("jobs") as queue:
        for number in range(2):
            queue.put(number)
        first, second = queue.get(timeout=5), queue.get(timeout=5)
        channel = queue.channel
        tags = {message.delivery_tag.encode() for message in (first, second)}
        assert set(redis_client.zrange("unacked_index", 0, -1)) == tags
        redis_client.zadd("unacked_index", dict.fromkeys(tags, 1.0))
        redis_client.zrem("unacked_index", second.delivery_tag)

        renew(channel)

        scores = dict(redis_client.zrange("unacked_index", 0, -1, withscores=True))
        assert set(scores) == {first.delivery_tag.encode()}
        assert time.time() - scores[first.delivery_tag.encode()] < 60
        first.ack()
        second.ack()
