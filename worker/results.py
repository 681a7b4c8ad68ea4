# SPDX-License-Identifier: Apache-2.0
"""Where a worker keeps states and answers: Celery's own backends, which wait for a Redis that refuses.

Keys and formats are Celery's. Written against Celery 5.7.0: a state that cannot be stored ends its task there, done or
not even begun, and the message is acknowledged. Its `result_backend_always_retry` waits for a lost connection only.
"""

from functools import partial
from typing import Any

import redis
from celery import Celery
from celery.backends import redis as stock
from typing_extensions import override

from worker.transport import beat

_SCHEMES = {"redis": "RedisBackend", "rediss": "RedisBackend", "sentinel": "SentinelBackend"}


class RedisBackend(stock.RedisBackend):  # type: ignore[misc]  # Celery has no types
    """Waits as long as Redis is full, cannot write to its disk, is a replica or may not be written to by this user."""

    @override
    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Take every refusal for one that passes: it is about the server, never about what is stored."""
        return isinstance(exc, redis.ResponseError) or bool(super().exception_safe_to_retry(exc))

    @override
    def on_backend_retryable_error(self, exc: Exception) -> None:
        """Let go of a server that has become a replica: the next connection may lead to the new master."""
        if isinstance(exc, redis.exceptions.ReadOnlyError):
            self.client.connection_pool.disconnect()

    @override
    def on_chord_part_return(self, *args: Any, **kwargs: Any) -> None:
        """Wait here too; Celery does not, and the chord would fail. What a part has counted is not counted again."""
        self._ensure_retryable(partial(super().on_chord_part_return, *args, **kwargs))

    @override
    def _sleep(self, amount: float) -> None:
        """Give the worker's sign of life meanwhile: its loop waits here when it stores that a task was revoked, say."""
        super()._sleep(amount)
        beat()


class SentinelBackend(RedisBackend, stock.SentinelBackend):  # type: ignore[misc]
    """The same where Sentinel names the master."""


def select(app: Celery) -> None:
    """Make `redis://`, `rediss://` and `sentinel://` mean these backends to an app; the URL stays what people read."""
    app.loader.override_backends = {scheme: f"{__name__}:{name}" for scheme, name in _SCHEMES.items()}
