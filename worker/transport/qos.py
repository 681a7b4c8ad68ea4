# SPDX-License-Identifier: Apache-2.0
"""What becomes of a delivered message, and how many more there may be. Written against kombu 5.7.0."""

from typing import Any

from kombu.transport import redis as stock
from typing_extensions import override

BATCH = 16
"""Messages taken at once where kombu sets no limit."""


class QoS(stock.QoS):  # type: ignore[misc]  # kombu has no types
    """Settles what the ledger recorded; knows of no other unacknowledged messages than the process has.

    kombu gives back what it has delivered when a channel closes, which a lost connection makes it do while tasks run
    (and fails in, ending the worker: `Connection.client` is None by then). It finds nothing here; `leave` does that.
    """

    @override
    def append(self, message: Any, delivery_tag: str) -> None:
        """Record nothing: it was done when Redis delivered. Kombu does it here, and dies between the two at times."""
        if delivery_tag not in self.channel.ledger:
            super().append(message, delivery_tag)

    @override
    def ack(self, delivery_tag: str) -> None:
        """Settle in the ledger, which needs no channel."""
        if delivery_tag in self.channel.ledger:
            self.channel.ledger.acknowledge(delivery_tag)
        else:
            super().ack(delivery_tag)

    @override
    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Count what Celery requeues, for its process died over it; keep what it refuses instead of dropping it."""
        if delivery_tag not in self.channel.ledger:
            super().reject(delivery_tag, requeue=requeue)
        elif requeue:
            self.channel.ledger.give_back(delivery_tag, is_failure=True)
        else:
            self.channel.ledger.bury(delivery_tag, "the worker refused it: unknown task, or a message that is none")

    @override
    def can_consume(self) -> bool:
        """Count what the process works on, also if it was delivered before a reconnect."""
        return not self.prefetch_count or self.credit > 0

    @property
    def credit(self) -> int:
        """How many more messages may be delivered."""
        if not self.prefetch_count:
            return BATCH
        return int(self.prefetch_count) - len(self.channel.ledger)

    @property
    def is_overdrawn(self) -> bool:
        """Whether more is held than may be."""
        return bool(self.prefetch_count) and self.credit < 0

    @override
    def restore_visible(self, *_: object, **__: object) -> None:
        """Nothing: a message is given back when its consumer is dead, however long its task runs."""
