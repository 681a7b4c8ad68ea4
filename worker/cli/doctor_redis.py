# SPDX-License-Identifier: Apache-2.0
"""What a doctor sees in Redis: that it can be relied on, and that this node is there."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import redis

from worker.cli.cluster import Cluster
from worker.cli.findings import Finding, good, note, wrong
from worker.nodes import Nodes

_NOTED_SKEW_SECONDS = 1.0
_WRONG_SKEW_SECONDS = 10.0


def check_redis(cluster: Cluster) -> Iterator[Finding]:
    """Look at the server and at this node's place in it. Without a server there is nothing else to see."""
    try:
        facts: Mapping[str, Any] = cluster.client.info()
        before = time.time()
        seconds, microseconds = cluster.client.time()
        after = time.time()
    except redis.RedisError as error:
        yield wrong("redis", f"it cannot be asked: {error}; PROVISIONER_REDIS_URL names it")
        return
    yield good("redis", f"{_server_name(facts)}, {facts.get('used_memory_human', '?')} used")
    yield check_eviction(facts)
    yield check_persistence(facts)
    yield check_clock(seconds + microseconds / 1e6, before=before, after=after)
    yield check_registration(cluster.nodes, cluster.settings.node)


def _server_name(facts: Mapping[str, Any]) -> str:
    if "valkey_version" in facts:
        return f"Valkey {facts['valkey_version']}"
    return f"Redis {facts.get('redis_version', 'of unknown version')}"


def check_eviction(facts: Mapping[str, Any]) -> Finding:
    """A server that drops keys when it is full drops locks, states and messages."""
    policy, limit = str(facts.get("maxmemory_policy", "unknown")), int(facts.get("maxmemory", 0))
    if policy == "noeviction":
        return good("redis eviction", "noeviction: a full server refuses writes and loses nothing")
    if limit:
        return wrong("redis eviction", f"{policy} with maxmemory {limit}: a full server drops locks; use noeviction")
    return note("redis eviction", f"{policy}, without a maxmemory so far; use noeviction")


def check_persistence(facts: Mapping[str, Any]) -> Finding:
    """What is on disk survives; messages and results that are not go with the server."""
    if facts.get("rdb_last_bgsave_status") == "err" or facts.get("aof_last_write_status") == "err":
        return wrong("redis persistence", "the last write to its disk failed; it may refuse writes until one succeeds")
    if facts.get("aof_enabled"):
        return good("redis persistence", "append-only file")
    return note("redis persistence", "no append-only file: tasks in the queues may be lost with the server")


def check_clock(server_seconds: float, *, before: float, after: float) -> Finding:
    """Compare the clocks; what lies between the two readings is no skew."""
    skew = max(server_seconds - after, before - server_seconds, 0.0)
    detail = f"this machine and Redis differ by {skew:.3f} s"
    if skew > _WRONG_SKEW_SECONDS:
        return wrong("clock", f"{detail}; set it")
    return note("clock", detail) if skew > _NOTED_SKEW_SECONDS else good("clock", detail)


def check_registration(nodes: Nodes, name: str) -> Finding:
    """Tell whether the node takes work."""
    status = next((each for each in nodes.all() if each.view.name == name), None)
    if status is None:
        return wrong("node", f"{name} never registered: no worker was started, or under another PROVISIONER_NODE")
    if not status.is_live:
        return wrong("node", f"{name} is gone: its worker is not running, or cannot reach Redis")
    if not status.is_recovered:
        return note("node", f"{name} is alive and still recovering")
    return good("node", f"{name} is alive, backend {status.view.backend}, version {status.view.version}")
