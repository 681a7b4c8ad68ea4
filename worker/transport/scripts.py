# SPDX-License-Identifier: Apache-2.0
"""The queue's transitions as typed calls: one script and one round trip each.

They raise what redis-py raises: kombu and Celery know those classes and reconnect.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

import redis

from worker.lua import script

GONE = [b"gone"]
"""What a consumer is answered that was ended."""


def messages_of(answer: Sequence[bytes]) -> list[tuple[str, bytes]]:
    """Read the answer of a take: each message with the key of its list."""
    return [(source.decode(), message) for source, message in zip(answer[1::2], answer[2::2], strict=True)]


class Settled(StrEnum):
    """What came of taking a message out of a consumer's record."""

    DONE = "done"
    ECHO = "echo"
    GONE = "gone"
    DUE = "due"
    BURIED = "buried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message in a consumer's record.

    Attributes:
        consumer: To whom it was delivered.
        source: Key of the list it came from.
        message: As it was published.
    """

    consumer: str
    source: str
    message: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What a sign of life found.

    Attributes:
        held: Messages in the consumer's records.
        buried: What was laid aside, because too many workers died over it.
        ended: Consumers that were dead, and how many messages each had.
    """

    held: int
    buried: list[bytes]
    ended: dict[str, int]


class QueueScripts:
    """The scripts on one client. Each may be repeated when its reply was lost, and `take` loses nothing by it.

    Args:
        client: Its replies are bytes.
        key: What all keys start with.
    """

    def __init__(self, client: redis.Redis, key: str) -> None:
        self.client = client
        self.key = key
        self._scripts = {
            transition: script(client, "allow_oom", "lock_server", "queue_common", f"queue_{transition}")
            for transition in ("beat", "acknowledge", "return", "delay", "bury", "leave", "letter_requeue")
        }
        # A full server takes no state of a task, let alone its answer, so nothing is begun there; nor does BLMOVE.
        self._scripts["take"] = script(client, "lock_server", "queue_common", "queue_take")

    def record_key(self, consumer: str, source: str) -> str:
        """Name the list that holds what a consumer was delivered from `source`."""
        return f"{self.key}:taken:{consumer}:{source}"

    def beat(self, consumer: str, *, lease_ms: int, limit: int, sources: Sequence[str]) -> Beat | None:
        """Give a sign of life, and end who is dead. None: the consumer itself was taken for dead and is no more."""
        answer = self._call("beat", consumer, lease_ms, limit, *sources)
        if answer == GONE:
            return None
        names, counts = answer[3][::2], answer[3][1::2]
        ended = {name.decode(): count for name, count in zip(names, counts, strict=True)}
        return Beat(held=answer[1], buried=answer[2], ended=ended)

    def take_command(self, consumer: str, *, count: int, sources: Sequence[str]) -> tuple[str | int, ...]:
        """Return what takes up to `count` messages, from the first source first, for a connection of the caller's.

        The answer is GONE, or what `messages_of` reads; or an error, NoScriptError, after which `load_take` helps.
        """
        return ("EVALSHA", self._scripts["take"].sha, 1, self.key, consumer, count, *sources)

    def load_take(self) -> None:
        """Let the server know that script."""
        self.client.script_load(self._scripts["take"].script)

    def take(self, consumer: str, *, count: int, sources: Sequence[str]) -> list[Delivery] | None:
        """Take as `take_command` does, and wait for the answer. None: the consumer is gone."""
        answer = self._call("take", consumer, count, *sources)
        if answer == GONE:
            return None
        return [Delivery(consumer=consumer, source=source, message=message) for source, message in messages_of(answer)]

    def acknowledge(self, delivery: Delivery) -> Settled:
        """Take a message that is done out of the record."""
        return self._settle("acknowledge", delivery)

    def give_back(self, delivery: Delivery, *, limit: int = 0) -> Settled:
        """Give a message back; with a limit it counts as a failure, and at the last one it is BURIED."""
        return self._settle("return", delivery, limit)

    def delay(self, delivery: Delivery, *, due_ms: int) -> Settled:
        """Keep a message until it is due; DUE if it is, nothing changed."""
        return self._settle("delay", delivery, due_ms)

    def bury(self, delivery: Delivery, *, reason: str) -> Settled:
        """Lay a message aside."""
        return self._settle("bury", delivery, reason)

    def leave(self, consumer: str) -> int:
        """End the consumer. Returns how many messages went back."""
        return int(self._call("leave", consumer))

    def requeue_letter(self, letter: str) -> bool:
        """Put a message that was laid aside into its queue again. Returns whether it was there."""
        return bool(self._call("letter_requeue", letter))

    def records(self, consumer: str, sources: Sequence[str]) -> list[Delivery]:
        """Return all in the consumer's records, latest first per source."""
        return [
            Delivery(consumer=consumer, source=source, message=message)
            for source in sources
            for message in cast("list[bytes]", self.client.lrange(self.record_key(consumer, source), 0, -1))
        ]

    def _settle(self, transition: str, delivery: Delivery, *arguments: str | int) -> Settled:
        answer = self._call(transition, delivery.consumer, delivery.source, delivery.message, *arguments)
        return Settled(answer.decode())

    def _call(self, transition: str, *arguments: str | int | bytes) -> Any:
        return self._scripts[transition](keys=[self.key], args=arguments)
