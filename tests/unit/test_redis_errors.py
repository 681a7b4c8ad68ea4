# SPDX-License-Identifier: Apache-2.0
"""Tests of the translation of what redis-py raises."""

import pytest
import redis

from worker.errors import StateUnavailable, TransientError
from worker.redis_errors import redis_errors


@pytest.mark.parametrize(
    "error", [redis.ConnectionError("no route"), redis.TimeoutError("late"), redis.ResponseError()]
)
def test_what_redis_raises_is_a_transient_error(error: redis.RedisError) -> None:
    """The sentence names the kind and the reason; the original is the cause."""
    with pytest.raises(StateUnavailable, match=f"{type(error).__name__}: {error}") as raised, redis_errors():
        raise error

    assert isinstance(raised.value, TransientError)
    assert raised.value.__cause__ is error


def test_other_errors_pass() -> None:
    """A mistake of ours is not taken for a failure of Redis."""
    with pytest.raises(ZeroDivisionError), redis_errors():
        _ = 1 / 0


def test_it_is_a_decorator_too() -> None:
    """A decorated function may be called again and again."""

    @redis_errors()
    def ask() -> None:
        raise redis.ConnectionError("no route")

    for _ in range(2):
        with pytest.raises(StateUnavailable):
            ask()
