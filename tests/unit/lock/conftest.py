# SPDX-License-Identifier: Apache-2.0
"""A lock for each test."""

import pytest
import redis

from worker.lock import ReadWriteLock

NAME = "{provisioner:test}:lock:store"


@pytest.fixture
def lock(redis_client: redis.Redis) -> ReadWriteLock:
    """A lock over a resource that was never touched, of a lease so long that only bells can wake a waiter in time."""
    return ReadWriteLock(redis_client, NAME, lease_seconds=300, token_floor=lambda: 0)


@pytest.fixture
def brief_lock(redis_client: redis.Redis) -> ReadWriteLock:
    """The same of a lease that a test can outwait."""
    return ReadWriteLock(redis_client, NAME, lease_seconds=1.0, token_floor=lambda: 0)
