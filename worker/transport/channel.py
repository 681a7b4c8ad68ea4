# SPDX-License-Identifier: Apache-2.0
"""kombu's Redis transport with another way to consume. Written against kombu 5.7.0; a test names what it leans on.

Publishing, queues as lists, fanout and remote control are kombu's. So is a consumer that acknowledges nothing, such as
one of replies. Overridden, each with its reason at the method:

=========  =========================================================================
Transport  ``__init__``, for its poller
Poller     ``get``, ``_register_BRPOP``, ``on_readable``, ``maybe_restore_messages``
Channel    ``basic_consume``, ``_basic_cancel``, ``_connparams``; new ``listen``, ``beat``
QoS        ``append``, ``ack``, ``reject``, ``can_consume``, ``restore_visible``
=========  =========================================================================
"""

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property, partial
from queue import Empty
from typing import Any

import redis
from kombu.transport import redis as stock
from kombu.utils.json import loads
from redis.backoff import NoBackoff
from redis.retry import Retry
from typing_extensions import override

from worker.settings import BEATS_PER_TIMEOUT
from worker.transport.due import due_ms_of
from worker.transport.ledger import Ledger
from worker.transport.poller import Poller
from worker.transport.qos import BATCH, QoS
from worker.transport.scripts import Delivery, QueueScripts
from worker.transport.waits import Wait

_log = logging.getLogger(__name__)
_REST_SECONDS = 1.0
_LOOP_PID = os.getpid()
"""Of the worker's main process, which is the one that imports this; its pool's are forked from it."""
_ledgers: dict[tuple[int, str, str], Ledger] = {}


def leave() -> None:
    """Give back all that this process was delivered and did not finish; its tasks have ended, and none will begin."""
    for ledger in _own_ledgers():
        ledger.leave()


def disconnect() -> None:
    """Close the ledgers' connections, since another one was lost: they would be waited on in vain, one by one."""
    for ledger in _own_ledgers():
        ledger.disconnect()


def beat() -> None:
    """Give the signs of life that are due, in the place of a loop that is kept waiting."""
    for ledger in _own_ledgers():
        if ledger.is_beat_due:
            with suppress(redis.RedisError, OSError):
                ledger.beat()


def _own_ledgers() -> list[Ledger]:
    return [ledger for (pid, _, _), ledger in _ledgers.items() if pid == os.getpid()]


class Channel(stock.Channel):  # type: ignore[misc]
    """Delivers what Redis has recorded as delivered.

    Attributes:
        consumer_name: Option; what this process's consumer is called in Redis.
        queue_key: Option; what the keys of the records start with.
        max_deliveries: Option; see `Ledger`.
        is_recorded: Whether somebody here acknowledges.
        waits: One per queue, by the name of its handler.
    """

    QoS = QoS
    consumer_name = "worker"
    queue_key = "{provisioner:default}:queue"
    max_deliveries = 10
    from_transport_options = (*stock.Channel.from_transport_options, "consumer_name", "queue_key", "max_deliveries")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.is_recorded = False
        self.waits: dict[str, Wait] = {}
        self._no_ack_queues: set[str] = set()
        self._is_dry = False
        self._rests_until = 0.0
        super().__init__(*args, **kwargs)

    @cached_property
    def ledger(self) -> Ledger:
        """The process's ledger for this server; the first channel makes it, with connections of its own."""
        # Of several sentinels kombu's URL is the one whose turn it is: another one after each lost connection.
        server = ";".join(self.connection.client.alt) or self.connection.client.as_uri()
        key = (os.getpid(), server, f"{self.queue_key} {self.consumer_name}")
        if key not in _ledgers:
            scripts = QueueScripts(redis.Redis(connection_pool=self._get_pool()), self.queue_key)
            options = {"timeout_seconds": self.visibility_timeout, "max_deliveries": self.max_deliveries}
            _ledgers[key] = Ledger(scripts, self.consumer_name, **options)
        return _ledgers[key]

    @override
    def basic_consume(self, queue: str, no_ack: bool = False, *args: Any, **kwargs: Any) -> Any:
        """Make the consumer known before anything can be delivered to it."""
        answer = super().basic_consume(queue, no_ack, *args, **kwargs)
        if no_ack:
            self._no_ack_queues.add(queue)
        elif queue not in self._fanout_queues:
            self.is_recorded = True
        if self.is_recorded:
            self.ledger.serve(self._sources(), is_listening=bool(self.waits))
            self._open_waits()
        return answer

    @override
    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """Keep the loop waiting for a beat or two at most; redis-py would ask ten times more, which takes a minute.

        The pool's processes keep theirs: what they publish to a slow Redis would arrive as often as it is tried.
        """
        parameters: dict[str, Any] = super()._connparams(asynchronous)
        if os.getpid() != _LOOP_PID:
            return parameters
        for name in ("socket_timeout", "socket_connect_timeout"):
            if name in parameters:
                parameters[name] = min(parameters[name] or math.inf, self._beat_seconds)
        # One that is read when it is readable would, connected again, be read until somebody else broadcasts something.
        return {**parameters, "retry": Retry(NoBackoff(), 0 if asynchronous else 1)}

    @property
    def _beat_seconds(self) -> float:
        return float(self.visibility_timeout) / BEATS_PER_TIMEOUT

    def _sources(self) -> list[str]:
        """The lists to take from: kombu's order, by priority and then round robin."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        return [self._q_for_pri(queue, priority) for priority in self.priority_steps for queue in queues]

    def _open_waits(self) -> None:
        for queue in self.active_queues:
            name = f"wait for {queue}"
            if name not in self.waits:
                self.waits[name] = Wait(self._create_client(asynchronous=True), queue)
                self.handlers[name] = partial(self._receive_messages, self.waits[name])

    @override
    def _basic_cancel(self, consumer_tag: str) -> None:
        """Stop waiting at once: nobody reads the answer once Celery has cancelled its consumer."""
        super()._basic_cancel(consumer_tag)
        for wait in self.waits.values():
            if wait.source not in self.active_queues:
                wait.close()
        self.waits = {name: wait for name, wait in self.waits.items() if wait.source in self.active_queues}

    def listen(self) -> None:
        """Ask for what is there, and once that is nothing, wait on every queue; called while there is credit.

        Everything is asked for without waiting for the answer and handed on where it is read: what is handed on at this
        point of the loop's turn, the pool would not see before the next turn.
        """
        idle = [wait for wait in self.waits.values() if not wait.is_out]
        is_taking = any(wait.is_taking for wait in self.waits.values())
        if not idle or is_taking or time.monotonic() < self._rests_until:
            return
        consumer = self.ledger.consumer
        if not self._is_dry:
            count = min(self.qos.credit, BATCH)
            idle[0].take(consumer, self.ledger.take_command(self._sources(), count))
            return
        for wait in idle:
            wait.wait(consumer, self.ledger.record_key(wait.source))

    def _receive_messages(self, wait: Wait) -> bool:
        """Hand on what came on a wait's connection. Raises Empty if that is nothing."""
        was_taking = wait.is_taking
        consumer, reply = self._on_refusal(wait.receive) or ("", None)
        received = self.ledger.received(consumer, wait.source, reply, sent_at=wait.sent_at)
        # The script's answer is certain. A message that was waited for is likely to be the only one. A wait that ended
        # without one is the time to look into the lists that nobody waits on, those of lower priority.
        self._is_dry = not received if was_taking else bool(received) and not wait.was_prompt
        if not self._hand_on_all(received):
            raise Empty
        return True

    def _hand_on_all(self, received: Sequence[tuple[str, Delivery]]) -> bool:
        """Give each its turn. What an error leaves behind comes back: nobody else would ever settle it."""
        rest, handed_on = dict(received), False
        try:
            for tag, delivery in received:
                del rest[tag]
                handed_on = self._hand_on(tag, delivery) or handed_on
        finally:
            self.ledger.disown(rest)
        return handed_on

    def _hand_on(self, tag: str, delivery: Delivery) -> bool:
        """Give a recorded message to its queue's callback, unless it is too much, unreadable, or not due."""
        queue = delivery.source.rsplit(self.sep, 1)[0]
        if queue not in self.active_queues or self.qos.is_overdrawn:
            self.ledger.give_back(tag)
            return False
        self._queue_cycle.rotate(queue)
        try:
            payload = loads(delivery.message.decode())
            payload["properties"]["delivery_tag"] = tag
            self.decode_body(payload["body"], payload["properties"].get("body_encoding"))
            due_ms = due_ms_of(payload)
        except Exception as error:  # noqa: BLE001 - whatever a stranger's bytes can make a decoder raise
            self.ledger.bury(tag, f"cannot be decoded: {error!r}")
            return False
        if due_ms is not None and self.ledger.delay(tag, due_ms):
            return False
        self.connection._deliver(payload, queue)  # noqa: SLF001 - as kombu's own channel does
        if queue in self._no_ack_queues:
            self.ledger.acknowledge(tag)
        return True

    def beat(self) -> None:
        """Give the sign of life, and drop the connections on which an answer is overdue."""
        for wait in self.waits.values():
            if wait.is_overdue(self._beat_seconds):
                _log.warning("no answer on the connection that waits for %s: it is closed", wait.source)
                wait.close()
        if self.ledger.is_beat_due:
            self._on_refusal(self.ledger.beat)

    def _on_refusal(self, ask: Callable[[], Any]) -> Any:
        """Ask Redis; when it answers but refuses, rest. Returns None then; a worker does not end because of it.

        Raises:
            redis.ConnectionError: It cannot be reached; or it is a replica by now, and another one is to be found.
        """
        try:
            return ask()
        except redis.exceptions.NoScriptError:
            self.ledger.load()
            return None
        except redis.exceptions.ReadOnlyError as error:
            raise redis.ConnectionError(f"the server has become a replica: {error}") from error
        except redis.ResponseError as error:
            _log.warning("Redis refuses: %s", error)
            self._rests_until = time.monotonic() + _REST_SECONDS
            return None


class Transport(stock.Transport):  # type: ignore[misc]
    """What `redis://` and `rediss://` mean in a worker's process."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()
