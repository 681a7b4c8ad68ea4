# SPDX-License-Identifier: Apache-2.0
"""Messages that were laid aside: looked at, put into their queue again, or dropped. For people, at a terminal."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import redis
from redis.client import NEVER_DECODE

from worker.redis_errors import redis_errors
from worker.transport.scripts import QueueScripts

_SHOWN_BYTES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One message that was laid aside.

    Attributes:
        letter_id: SHA-1 of the message.
        at_ms: When it was laid aside, by the server's clock.
        queue: The list it goes back to.
        reason: One sentence.
        task: Name of the task, or "" if the message does not say.
        task_id: Likewise.
        arguments: Celery's text of the keywords, or the beginning of what cannot be read.
    """

    letter_id: str
    at_ms: int
    queue: str
    reason: str
    task: str
    task_id: str
    arguments: str

    def to_document(self) -> dict[str, Any]:
        """Return the JSON object for `provisioner dead-letters`."""
        return asdict(self)


class Letters:
    """The dead letters of one cluster.

    Args:
        client: Any; a connection of its own is not needed.
        queue_key: What the keys of the records start with.
    """

    def __init__(self, client: redis.Redis, queue_key: str) -> None:
        self._client = client
        self._key = f"{queue_key}:dead"
        self._scripts = QueueScripts(client, queue_key)

    @redis_errors()
    def all(self) -> list[Letter]:
        """Return all, the oldest first. Two round trips."""
        index = cast("list[tuple[Any, float]]", self._client.zrange(self._key, 0, -1, withscores=True))
        pairs = [(_text(letter_id), int(at_ms)) for letter_id, at_ms in index]
        with self._client.pipeline(transaction=False) as pipeline:
            for letter_id, _ in pairs:
                # What nobody can decode is among them, so redis-py must not try.
                cast("Any", pipeline).execute_command("HGETALL", f"{self._key}:{letter_id}", **{NEVER_DECODE: True})
            rows = pipeline.execute()
        return [_read(letter_id, at_ms, row) for (letter_id, at_ms), row in zip(pairs, rows, strict=True) if row]

    @redis_errors()
    def requeue(self, letter_id: str) -> bool:
        """Put a message at the end of its queue. Returns whether it was there."""
        return self._scripts.requeue_letter(letter_id)

    @redis_errors()
    def drop(self, letter_id: str) -> bool:
        """Delete a message for good. Returns whether it was there."""
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.delete(f"{self._key}:{letter_id}")
            pipeline.zrem(self._key, letter_id)
            return bool(pipeline.execute()[0])


def _read(letter_id: str, at_ms: int, row: Mapping[bytes, bytes]) -> Letter:
    message = row[b"message"]
    try:
        headers = json.loads(message)["headers"]
        task, task_id, arguments = (str(headers[name]) for name in ("task", "id", "kwargsrepr"))
    except (ValueError, KeyError, TypeError):
        task, task_id, arguments = "", "", message[:_SHOWN_BYTES].decode(errors="replace")
    return Letter(
        letter_id=letter_id,
        at_ms=at_ms,
        queue=_text(row[b"list"]),
        reason=_text(row[b"reason"]),
        task=task,
        task_id=task_id,
        arguments=arguments,
    )


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
