# SPDX-License-Identifier: Apache-2.0
"""Asking Redis for messages from the event loop: a connection for each queue, on which one command is out at most.

BLMOVE moves from one list only, hence a connection for each queue; it wakes one of those who wait, as BRPOP does. The
script that takes from all queues at once, and blocks on none, goes out on the same connections.
"""

import time
from typing import Any

import redis

# Redis ends a wait after this; what the channel looks at beside waiting, it looks at as often.
WAIT_SECONDS = 1.0
# Whoever got a message sooner did not wait for it: it was there, and more may be.
_PROMPT_SECONDS = 0.005


class Wait:
    """One queue's connection, and what is out on it.

    Attributes:
        client: As kombu's poller wants it: a client that keeps one `connection`.
        source: Key of the list.
        is_taking: Whether it is the script that is out.
        sent_at: When the last command went out, on the monotonic clock.
    """

    def __init__(self, client: Any, source: str) -> None:
        self.client = client
        self.source = source
        self.is_taking = False
        self._consumer: str | None = None
        self.sent_at = 0.0

    @property
    def is_out(self) -> bool:
        """Whether Redis owes an answer."""
        return self._consumer is not None

    def wait(self, consumer: str, record_key: str) -> None:
        """Ask for the next message of the queue, whenever it comes."""
        self._send(consumer, "BLMOVE", self.source, record_key, "RIGHT", "LEFT", WAIT_SECONDS)

    def take(self, consumer: str, command: tuple[str | int, ...]) -> None:
        """Ask for what is there in all queues."""
        self._send(consumer, *command)
        self.is_taking = True

    def _send(self, consumer: str, *command: str | float) -> None:
        self._consumer, self.sent_at = consumer, time.monotonic()
        self.client.connection.send_command(*command)

    def receive(self) -> tuple[str, Any]:
        """Read the answer: the consumer that was asked for, and what Redis says.

        Raises:
            redis.ResponseError: Redis refused, because it is full say, or the consumer is gone: nothing was moved.
            redis.ConnectionError: The connection is lost, and closed here.
        """
        consumer = self._consumer or ""
        self.forget()
        try:
            return consumer, self.client.parse_response(self.client.connection, "BLMOVE")
        except redis.ResponseError:
            raise
        except (redis.RedisError, OSError):
            self.close()
            raise

    @property
    def was_prompt(self) -> bool:
        """Whether the answer that was just read was there at once."""
        return time.monotonic() - self.sent_at < _PROMPT_SECONDS

    def is_overdue(self, grace_seconds: float) -> bool:
        """Tell whether the answer should have come: nobody is at the other end any more."""
        return self.is_out and time.monotonic() - self.sent_at > WAIT_SECONDS + grace_seconds

    def forget(self) -> None:
        """Expect no answer any more."""
        self._consumer, self.is_taking = None, False

    def close(self) -> None:
        """Close the connection; a message that is moved meanwhile is found in the record."""
        self.forget()
        if getattr(self.client, "connection", None) is not None:
            self.client.connection.disconnect()
