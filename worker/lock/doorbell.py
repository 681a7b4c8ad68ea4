# SPDX-License-Identifier: Apache-2.0
"""Sleep until somebody rings: a list in Redis, so that a bell rung during a reconnect is not missed."""

import time
from typing import Any

import redis

# How much later than the server promised an answer may come, and how long to wait when none can be had at all.
_GRACE_SECONDS = 2.0
_PAUSE_SECONDS = 0.1


def wait_for_bell(client: redis.Redis, key: str, *, seconds: float) -> None:
    """Return when an element can be taken from the list, or after `seconds`, or early when Redis fails.

    Blocks on a connection of its own, outside the client's retries and timeouts, which are made for short commands.

    Args:
        client: Its pool lends the connection.
        key: The list.
        seconds: > 0.
    """
    try:
        connection = client.connection_pool.get_connection()
    except redis.RedisError:
        time.sleep(min(seconds, _PAUSE_SECONDS))
        return
    try:
        if not _take(connection, key, seconds=seconds):
            time.sleep(min(seconds, _PAUSE_SECONDS))
    finally:
        client.connection_pool.release(connection)


def _take(connection: Any, key: str, *, seconds: float) -> bool:
    """Return whether Redis answered; if not, and after a signal's exception, the connection is closed.

    `connection` is redis-py's, whose methods it leaves untyped.
    """
    is_clean = False
    try:
        connection.send_command("BLPOP", key, f"{max(seconds, 0.001):.3f}")
        if connection.can_read(timeout=seconds + _GRACE_SECONDS):
            connection.read_response()
            is_clean = True
    except redis.RedisError:
        pass
    finally:
        if not is_clean:
            connection.disconnect()
    return is_clean
