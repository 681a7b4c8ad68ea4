# SPDX-License-Identifier: Apache-2.0
"""Keep the messages of a living worker its own, however long their tasks run.

kombu's Redis transport hands a message to somebody else when it has been unacknowledged for the visibility timeout,
counted from its delivery and renewed by nothing (celery#5935): a maximum run time, where a sign of life is wanted. This
step gives the sign, from the worker's own loop: while the loop turns, the messages stay; a dead worker's are taken over
one timeout later. A message that was taken over meanwhile is not claimed back.

Written against kombu 5.7; a test fails when the internals it touches move.
"""

import logging
import time
from typing import Any

from celery import bootsteps
from redis import RedisError

from worker.celery import app
from worker.settings import process_settings

_log = logging.getLogger(__name__)
_SIGNS_PER_TIMEOUT = 5


class MessageLiveness(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Renews all messages this worker has not acknowledged, those waiting for their retry included."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: object) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None

    def start(self, parent: Any) -> None:
        """Begin to renew."""
        seconds = process_settings().visibility_timeout_seconds / _SIGNS_PER_TIMEOUT
        self._timer = parent.timer.call_repeatedly(seconds, renew, (parent.task_consumer.channel,))

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Stop renewing: the connection is lost, or the worker ends."""
        if self._timer is not None:
            self._timer.cancel()


def renew(channel: Any) -> None:
    """Set the delivery time of the channel's unacknowledged messages to now, of those that are still there."""
    now = time.time()
    tags = dict.fromkeys(list(channel.qos._delivered), now)  # noqa: SLF001 - kombu has no other list of them
    if not tags:
        return
    try:
        with channel.conn_or_acquire() as client:
            client.zadd(channel.unacked_index_key, tags, xx=True)
    except RedisError as error:
        _log.warning("the sign of life for %d messages was not given: %s", len(tags), error)


app.steps["consumer"].add(MessageLiveness)
