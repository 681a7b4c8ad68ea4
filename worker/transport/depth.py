# SPDX-License-Identifier: Apache-2.0
"""How many messages there are, without reading any."""

from dataclasses import dataclass

import redis

from worker.redis_errors import redis_errors
from worker.settings import PROVISION_QUEUE, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """Messages that nobody works on.

    Attributes:
        waiting: In the queue that every node serves.
        waiting_here: In this node's own.
        delayed: Of all queues, those whose time has not come.
        dead: Laid aside.
    """

    waiting: int
    waiting_here: int
    delayed: int
    dead: int


class QueueDepths:
    """Counts the messages of a node's cluster.

    Args:
        client: Any; a connection of its own is not needed.
        settings: Of the node.
    """

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    @redis_errors()
    def read(self) -> QueueDepth:
        """Count them now. Cost: one round trip, whatever their number.

        Raises:
            StateUnavailable: Redis cannot be reached, or refuses.
        """
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.llen(PROVISION_QUEUE)
            pipeline.llen(self._settings.node_queue)
            pipeline.zcard(f"{self._settings.queue_key}:delayed")
            pipeline.zcard(f"{self._settings.queue_key}:dead")
            waiting, waiting_here, delayed, dead = pipeline.execute()
        return QueueDepth(waiting=waiting, waiting_here=waiting_here, delayed=delayed, dead=dead)
