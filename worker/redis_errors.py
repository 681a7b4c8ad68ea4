# SPDX-License-Identifier: Apache-2.0
"""Translation of what redis-py raises and answers, for all modules that talk to Redis."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from worker.errors import StateUnavailable


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn every `redis.RedisError` inside into `StateUnavailable`; also a decorator, `@redis_errors()`.

    NOTE: a command whose reply was lost may have run; only what is idempotent belongs inside.
    """
    try:
        yield
    except redis.RedisError as error:
        raise StateUnavailable(reason=f"{type(error).__name__}: {error}") from error


def text_of(value: object) -> str:
    """Decode an answer, whether or not the client decodes by itself."""
    return value.decode() if isinstance(value, bytes) else str(value)
