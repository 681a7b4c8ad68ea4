# SPDX-License-Identifier: Apache-2.0
"""Messages that wait in a queue, looked at and taken out one by one: for a queue that nobody will come to any more."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import redis
from redis.client import NEVER_DECODE

from worker.redis_errors import redis_errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One message.

    Attributes:
        raw: As it was published.
        is_delayed: Whether it waits for its time instead of its turn.
        headers: Celery's; empty if it cannot be read.
        keywords: Of the task.
        embed: What Celery has beside them: chord, callbacks.
    """

    raw: bytes
    is_delayed: bool
    headers: Mapping[str, Any]
    keywords: Mapping[str, Any]
    embed: Mapping[str, Any]

    @property
    def task(self) -> str:
        """Name of the task; "" if the message cannot be read."""
        return str(self.headers.get("task", ""))

    @property
    def task_id(self) -> str:
        """Id of the task."""
        return str(self.headers.get("id", ""))


class Backlog:
    """What waits in one queue.

    Args:
        client: Any.
        queue: Its name.
        queue_key: What the keys of the transport's records start with.
    """

    def __init__(self, client: redis.Redis, queue: str, *, queue_key: str) -> None:
        self._client = client
        self._queue = queue
        self._delayed_key = f"{queue_key}:delayed"
        # Celery's priority steps would add other lists; nobody sets priorities here.
        self._prefix = f"{len(queue)}:{queue}".encode()

    @redis_errors()
    def count(self) -> int:
        """Return how many messages wait for their turn."""
        return int(self._client.llen(self._queue))

    @redis_errors()
    def all(self) -> list[Waiting]:
        """Return them, the next one first, and then those that wait for their time. Cost: all delayed ones are read."""
        queued = reversed(self._raw("LRANGE", self._queue, 0, -1))
        delayed = self._raw("ZRANGE", self._delayed_key, 0, -1)
        return [
            *(read_message(raw) for raw in queued),
            *(
                read_message(raw[len(self._prefix) :], is_delayed=True)
                for raw in delayed
                if raw.startswith(self._prefix)
            ),
        ]

    @redis_errors()
    def remove(self, message: Waiting) -> bool:
        """Take one message out; tell whether it was there."""
        if message.is_delayed:
            return bool(self._client.zrem(self._delayed_key, self._prefix + message.raw))
        return bool(self._client.lrem(self._queue, 1, cast("str", message.raw)))

    def _raw(self, *command: str | int) -> list[bytes]:
        # What nobody can decode is among them, so redis-py must not try.
        return cast("list[bytes]", cast("Any", self._client).execute_command(*command, **{NEVER_DECODE: True}))


def read_message(raw: bytes, *, is_delayed: bool = False) -> Waiting:
    """Read what Celery published, as far as it can be read."""
    try:
        message = json.loads(raw)
        _, keywords, embed = json.loads(base64.b64decode(message["body"]))
        return Waiting(
            raw=raw, is_delayed=is_delayed, headers=dict(message["headers"]), keywords=dict(keywords), embed=dict(embed)
        )
    except (ValueError, KeyError, TypeError):
        return Waiting(raw=raw, is_delayed=is_delayed, headers={}, keywords={}, embed={})
