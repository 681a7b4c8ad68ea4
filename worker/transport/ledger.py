# SPDX-License-Identifier: Apache-2.0
"""What one worker process has been delivered and has not settled: it outlives channels and connections.

kombu keeps this per channel, so a reconnect forgets it: tasks that still run cannot be acknowledged, and run again
elsewhere (celery#5935). A record in Redis belongs to a *consumer* instead, which is this process from its first message
to its last. What is here is what Redis has in the consumer's records, but for a moment after a reply was lost.
"""

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import redis

from worker.settings import BEATS_PER_TIMEOUT
from worker.transport.scripts import GONE, Delivery, QueueScripts, Settled, messages_of
from worker.transport.strays import Strays

_log = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


def _one_at_a_time(
    method: "Callable[Concatenate[Ledger, Arguments], Answer]",
) -> "Callable[Concatenate[Ledger, Arguments], Answer]":
    """Keep threads apart: the loop's work is done by another one while the pool ends, and beside tasks of pool solo."""

    @wraps(method)
    def alone(self: "Ledger", /, *args: Arguments.args, **keywords: Arguments.kwargs) -> Answer:
        with self.lock:
            return method(self, *args, **keywords)

    return alone


class Ledger:
    """The deliveries of one consumer, by kombu's delivery tag.

    A consumer that gave no sign of life in time is gone for ever: its messages were given to others, and whatever it
    then says about them changes nothing. The process goes on as a new consumer.

    Args:
        scripts: On a client of its own, which no channel closes.
        name: What the consumer's name begins with.
        timeout_seconds: A dead consumer's messages are back in their queue after this.
        max_deliveries: A message is laid aside when so many consumers died over it.

    Attributes:
        consumer: The present name.
        on_buried: Called with each message over which too many died, so that whoever waits for its task can be told.
        lock: Held by whoever reads or changes what is here.
    """

    def __init__(self, scripts: QueueScripts, name: str, *, timeout_seconds: float, max_deliveries: int) -> None:
        self._scripts = scripts
        self._name = name
        self._beat_seconds = timeout_seconds / BEATS_PER_TIMEOUT
        # The last sign is good for so long, and whoever notices does so one beat later at most.
        self._lease_seconds = timeout_seconds - self._beat_seconds
        self._limit = max_deliveries
        self._sources: dict[str, None] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._unsettled: dict[str, Delivery] = {}
        self._strays = Strays()
        self._has_left = False
        self._pulse: threading.Thread | None = None
        self.lock = threading.RLock()
        self.on_buried: Callable[[bytes], None] = lambda _: None
        self._begin()

    def _begin(self) -> None:
        self.consumer = f"{self._name}:{uuid.uuid4().hex[:12]}"
        self._is_known = False
        self._beat_at = float("-inf")

    def __len__(self) -> int:
        """Count the messages that were handed on and not settled; those that others have by now included."""
        return len(self._deliveries)

    def __contains__(self, tag: object) -> bool:
        return tag in self._deliveries or tag in self._unsettled

    @property
    def is_beat_due(self) -> bool:
        """Whether it is time for a sign of life: a timer that is a little early must not wait for its next turn."""
        return time.monotonic() - self._beat_at >= self._beat_seconds / 2

    def record_key(self, source: str) -> str:
        """Name the list to which a message from `source` is moved."""
        return self._scripts.record_key(self.consumer, source)

    def serve(self, sources: Iterable[str], *, is_listening: bool) -> None:
        """Make the consumer known as one that takes from these lists too; nothing may be moved to it before.

        Args:
            sources: Keys of lists.
            is_listening: Whether answers may be under way. If not, what is unknown in the records is lost for certain,
                such as what was moved on a connection that is no more.
        """
        self._sources.update(dict.fromkeys(sources))
        self.beat()
        if self._strays and not is_listening:
            self.beat()

    @_one_at_a_time
    def beat(self) -> None:
        """Give a sign of life; settle what could not be settled before; give back what is here by a lost reply.

        Raises:
            redis.ConnectionError: Or TimeoutError: the server cannot be reached.
        """
        if self._has_left:
            return
        sources = tuple(self._sources)
        began_at = time.monotonic()
        beat = self._scripts.beat(
            self.consumer, lease_ms=round(self._lease_seconds * 1000), limit=self._limit, sources=sources
        )
        if beat is None:
            self._lose()
            self.beat()
            return
        self._beat_at, self._is_known = began_at, True
        for dead, count in beat.ended.items():
            _log.warning("consumer %s is dead: %d messages went back to their queues", dead, count)
        for message in beat.buried:
            self._tell_buried(message)
        self._settle_rest()
        self._return_strays(beat.held)

    def beat_beside(self) -> None:
        """Give the sign of life from a thread from now on, for a process whose loop stands still at times."""
        if self._pulse is None:
            self._pulse = threading.Thread(target=self._beat_for_ever, name="sign of life", daemon=True)
            self._pulse.start()

    def _beat_for_ever(self) -> None:
        while not self._has_left:
            time.sleep(self._beat_seconds)
            try:
                self.beat()
            except (redis.RedisError, OSError) as error:
                _log.warning("no sign of life was given: %s", error)

    def check(self) -> None:
        """Beat if this process was away for so long that its messages may not be its own any more."""
        if not self._is_known or time.monotonic() - self._beat_at >= self._lease_seconds:
            self.beat()

    def _lose(self) -> None:
        own = [each for each in self._deliveries.values() if each.consumer == self.consumer]
        _log.warning(
            "consumer %s gave no sign of life in time: its %d messages are no longer its own", self.consumer, len(own)
        )
        self._unsettled.clear()
        self._strays.clear()
        self._begin()

    def take_command(self, sources: Sequence[str], count: int) -> tuple[str | int, ...]:
        """Return the command that delivers up to `count` messages to the consumer."""
        return self._scripts.take_command(self.consumer, count=count, sources=sources)

    def load(self) -> None:
        """Let the server know the scripts again, which it has forgotten."""
        self._scripts.load_take()

    @_one_at_a_time
    def received(self, consumer: str, source: str, reply: Any, *, sent_at: float) -> list[tuple[str, Delivery]]:
        """Enter what Redis has moved to the consumer's record, each with its tag.

        Args:
            consumer: To whom.
            source: Where a single message came from.
            reply: What BLMOVE answered, or the script. None: nothing.
            sent_at: When it was asked for, on the monotonic clock.

        Returns:
            Nothing that is somebody else's by now: this process was away, and taken for dead; or the reply is so late
            that its messages went back.
        """
        self.check()
        if reply is None or consumer != self.consumer:
            return []
        if reply == GONE:
            self.beat()
            return []
        pairs = [(source, reply)] if isinstance(reply, bytes) else messages_of(reply)
        deliveries = [Delivery(consumer=consumer, source=each, message=message) for each, message in pairs]
        if any(self._strays.is_dubious(each, sent_at=sent_at) for each in deliveries):
            deliveries = list((Counter(deliveries) & self._unheard_of()).elements())
        return [(self.accept(delivery), delivery) for delivery in deliveries]

    def accept(self, delivery: Delivery) -> str:
        """Enter a delivery under a tag of its own: a message that was published twice has one tag from its sender."""
        tag = uuid.uuid4().hex
        self._deliveries[tag] = delivery
        return tag

    @_one_at_a_time
    def acknowledge(self, tag: str) -> None:
        """Settle a message as done. With Redis away this is made up for at a later beat, and never raises."""
        delivery = self._deliveries.pop(tag)
        try:
            self._note(self._scripts.acknowledge(delivery))
        except redis.RedisError as error:
            _log.warning("a message that is done is acknowledged when Redis is back: %s", error)
            self._unsettled[tag] = delivery

    def _note(self, outcome: Settled) -> None:
        if outcome is Settled.GONE:
            _log.warning("a message that is done was no longer this consumer's: it is not acknowledged")

    @_one_at_a_time
    def give_back(self, tag: str, *, is_failure: bool = False) -> None:
        """Give a message back to its queue, as a failure if a process died over it."""
        self._leave_record(tag, lambda each: self._scripts.give_back(each, limit=self._limit if is_failure else 0))

    @_one_at_a_time
    def bury(self, tag: str, reason: str) -> None:
        """Lay a message aside."""
        _log.error("a message was laid aside: %s; see `provisioner dead-letters`", reason)
        self._leave_record(tag, lambda each: self._scripts.bury(each, reason=reason))

    @_one_at_a_time
    def delay(self, tag: str, due_ms: int) -> bool:
        """Keep a message until it is due. Returns whether it is kept; it stays delivered if it is due by now."""
        delivery = self._deliveries[tag]
        outcome = self._leave_record(tag, lambda each: self._scripts.delay(each, due_ms=due_ms))
        if outcome is Settled.DUE:
            self._deliveries[tag] = delivery
        return outcome is not Settled.DUE

    @_one_at_a_time
    def disown(self, tags: Iterable[str]) -> None:
        """Have messages found as strays that nobody here works on."""
        for tag in tags:
            del self._deliveries[tag]

    def disconnect(self) -> None:
        """Begin with new connections."""
        self._scripts.client.connection_pool.disconnect()

    @_one_at_a_time
    def leave(self) -> None:
        """Give everything back and end the consumer; for good, once its tasks have ended."""
        if self._has_left:
            return
        self._has_left = True
        try:
            self._settle_rest()
            returned = self._scripts.leave(self.consumer)
        except redis.RedisError as error:
            _log.warning("consumer %s cannot say that it leaves, its messages wait: %s", self.consumer, error)
        else:
            _log.info("consumer %s leaves: %d messages went back to their queues", self.consumer, returned)

    def _leave_record(self, tag: str, settle: Callable[[Delivery], Settled]) -> Settled | None:
        """Settle a delivery; if Redis fails, None, and it is found as a stray later and given back."""
        delivery = self._deliveries.pop(tag)
        try:
            outcome = settle(delivery)
        except redis.RedisError as error:
            _log.warning("a message goes back to its queue when Redis is back: %s", error)
            return None
        if outcome is Settled.BURIED:
            self._tell_buried(delivery.message)
        return outcome

    def _tell_buried(self, message: bytes) -> None:
        _log.error("a message was laid aside, too many died over it: see `provisioner dead-letters`")
        try:
            self.on_buried(message)
        except Exception:  # noqa: BLE001 - news that cannot be passed on must not end the worker
            _log.exception("nobody is told of it")

    def _settle_rest(self) -> None:
        for tag, delivery in list(self._unsettled.items()):
            self._note(self._scripts.acknowledge(delivery))
            self._unsettled.pop(tag, None)

    def _return_strays(self, held: int) -> None:
        """Give back what is in the records and was never heard of: the reply that named it was lost.

        A reply may be on its way, so only what two beats in a row find is lost.
        """
        if held <= self._known().total():
            self._strays.clear()
            return
        lost = self._strays.lost(self._unheard_of())
        for delivery in lost.elements():
            self._scripts.give_back(delivery)
        if lost:
            _log.warning("%d messages whose delivery was cut off went back to their queues", lost.total())

    def _unheard_of(self) -> Counter[Delivery]:
        return Counter(self._scripts.records(self.consumer, tuple(self._sources))) - self._known()

    def _known(self) -> Counter[Delivery]:
        everything = (*self._deliveries.values(), *self._unsettled.values())
        return Counter(each for each in everything if each.consumer == self.consumer)
