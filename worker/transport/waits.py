# SPDX-License-Identifier: Apache-2.0
"""Waiting for a message on one queue: a connection of its own on which Redis moves it to the consumer's record.

BLMOVE moves from one list only, hence a connection for each queue; and it wakes one of those who wait, as BRPOP does.
"""

import time
from typing import Any

import redis

# Redis ends a wait after this; what the channel looks at beside waiting, it looks at as often.
WAIT_SECONDS = 1.0


class Wait:
    """One queue's connection, and whether a BLMOVE is out on it.

    Attributes:
        client: As kombu's poller wants it: a client that keeps one `connection`.
        source: Key of the list.
    """

    def __init__(self, client: Any, source: str) -> None:
        self.client = client
        self.source = source
        self._consumer: str | None = None
        self._sent_at = 0.0

    @property
    def is_out(self) -> bool:
        """Whether Redis owes an answer."""
        return self._consumer is not None

    def send(self, consumer: str, record_key: str) -> None:
        """Ask for the next message of the queue."""
        self._consumer, self._sent_at = consumer, time.monotonic()
        self.client.connection.send_command("BLMOVE", self.source, record_key, "RIGHT", "LEFT", WAIT_SECONDS)

    def receive(self) -> tuple[str, bytes | None]:
        """Read the answer: the consumer that it was moved for, and the message if one came.

        Raises:
            redis.ResponseError: Redis refused, because it is full say, or the consumer is gone: nothing was moved.
            redis.ConnectionError: The connection is lost, and closed here.
        """
        consumer, self._consumer = self._consumer or "", None
        try:
            return consumer, self.client.parse_response(self.client.connection, "BLMOVE")
        except redis.ResponseError:
            raise
        except (redis.RedisError, OSError):
            self.close()
            raise

    def is_overdue(self, grace_seconds: float) -> bool:
        """Tell whether the answer should have come: nobody is at the other end any more."""
        return self.is_out and time.monotonic() - self._sent_at > WAIT_SECONDS + grace_seconds

    def forget(self) -> None:
        """Expect no answer any more: the connection is a new one."""
        self._consumer = None

    def close(self) -> None:
        """Close the connection; a message that is moved meanwhile is found in the record."""
        self.forget()
        if getattr(self.client, "connection", None) is not None:
            self.client.connection.disconnect()
