# SPDX-License-Identifier: Apache-2.0
"""What the worker's main process does differently from Celery's, now that deliveries outlive a connection.

Named in the options of `worker.celery`; imported in a worker only. Written against Celery 5.7.0.
"""

import logging
import os
import signal
import threading
import time
import warnings
from functools import partial
from typing import Any

import redis
from celery.app.task import Context
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.exceptions import CPendingDeprecationWarning
from celery.signals import worker_shutting_down
from celery.worker.consumer import Consumer as CeleryConsumer
from typing_extensions import override

from worker.errors import TaskLaidAside
from worker.settings import process_settings
from worker.transport import beat, disconnect, leave
from worker.transport.backlog import read_message

_log = logging.getLogger(__name__)
_REST_SECONDS = 1.0
_RECONNECT = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 2.0}


class Consumer(CeleryConsumer):  # type: ignore[misc]  # Celery has no types
    """Goes on with what it was delivered when the connection is lost, and gives back the rest when it ends."""

    _is_reconnecting = False

    @override
    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Remember why `on_close` is called next. Celery warns that tasks cannot be acknowledged now; they can."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)
        self._is_reconnecting = True
        # The ledger's are likely to be as dead, and each would be found out by a timeout of its own.
        disconnect()
        if isinstance(exc, redis.ResponseError):
            # There is a connection at once again, and the next refusal.
            _log.warning("Redis refuses: %s", exc)
            time.sleep(_REST_SECONDS)
            beat()

    @override
    def on_close(self) -> None:
        """Keep what waits for a process of the pool over a lost connection; Celery drops it, for it cannot ack it."""
        if self._is_reconnecting:
            self._is_reconnecting = False
            return
        super().on_close()

    @override
    def loop_args(self) -> Any:
        """Bury the pool's processes that died during a reconnect; the loop would end the worker over their descriptors.

        Celery's pool stops watching a dead process before it removes it, and watches all that are left when the loop
        begins anew: `ValueError: file descriptor is None`.
        """
        if self.restart_count:
            getattr(self.pool, "maintain_pool", lambda: None)()
        return super().loop_args()

    @override
    def on_ready(self) -> None:
        """Take the ledger's news, and let a thread give the sign of life unless the pool has processes.

        With solo the loop stands still while a task runs. At a warm shutdown only prefork fires the loop's timers.
        """
        super().on_ready()
        ledger = self.task_consumer.channel.ledger
        ledger.on_buried = self.fail_laid_aside
        if not isinstance(self.pool, PreforkPool):
            ledger.beat_beside()

    def fail_laid_aside(self, raw: bytes) -> None:
        """Let whoever waits for the task know that it is not tried again."""
        message = read_message(raw)
        if message.task_id:
            request = Context(message.headers, **message.embed, task=message.task)
            error = TaskLaidAside(task_id=message.task_id)
            self.app.backend.mark_as_failure(message.task_id, error, request=request)

    @override
    def ensure_connected(self, conn: Any) -> Any:
        """Try again every two seconds, Celery's pauses grow to half a minute; then give the sign of life that is due.

        Until the loop does so again, Celery asks other workers for news and opens a channel after the other.
        """
        conn.ensure_connection = partial(conn.ensure_connection, **_RECONNECT)
        connected = super().ensure_connected(conn)
        beat()
        return connected

    @override
    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Lay aside what cannot be decoded; Celery acknowledges it, and it is gone."""
        _log.error("a message cannot be decoded: %r", exc)
        message.reject_log_error(_log, self.connection_errors)

    @override
    def shutdown(self) -> None:
        """Give back what was not finished: the pool has ended, so nobody works on it any more."""
        super().shutdown()
        leave()


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def bound_shutdown(how: str, **_: object) -> None:
    """Turn SIGTERM, which waits for the running tasks, into SIGQUIT, which does not, when it takes too long."""
    if how == "Warm":
        seconds = process_settings().shutdown_seconds
        timer = threading.Timer(seconds, _give_up_waiting, (seconds,))
        timer.daemon = True
        timer.start()


def _give_up_waiting(seconds: float) -> None:
    _log.warning("tasks still run after %g s: they are given back", seconds)
    os.kill(os.getpid(), signal.SIGQUIT)
