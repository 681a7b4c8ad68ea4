# SPDX-License-Identifier: Apache-2.0
"""The registry of nodes in Redis: who is alive, which store they use, and whether their state has been recovered.

A node shows itself by heartbeats and stays listed, as gone, until somebody forgets it. Its *recovered* mark lives only
in Redis and is set only when `recover` has rebuilt the node's containers there: while it is missing, because the worker
has just started or because Redis lost its data, the view of that node cannot be trusted, and its worker sees to it that
`recover` runs. Prune asks the disk and not for this mark: whatever Redis shows, each image in use has its ref there. A
worker recovers before it takes tasks, and a later `recover` keeps the node's own prunes waiting by `node.lock`.

Every method raises `StateUnavailable` when Redis cannot be reached or refuses. `worker/lua/node_heartbeat.lua` lists
the keys.
"""

import json
import secrets
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any, Self

import redis

from worker.epoch import Epoch, epoch_arguments
from worker.lua import script
from worker.redis_errors import redis_errors, text_of


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """What a node says of itself.

    Attributes:
        store_id: Identity of its store; nodes that share a store share it.
        backends: Names of those that work there, the preferred one first.
        layer_formats: Those it can stack, the preferred one first.
        backend: The one in use.
        free_bytes: Of the store's filesystem.
        version: Of the worker.
    """

    name: str
    store_id: str
    backends: tuple[str, ...]
    layer_formats: tuple[str, ...]
    backend: str
    free_bytes: int
    version: str

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote."""
        document = json.loads(text)
        sequences = {key: tuple(document[key]) for key in ("backends", "layer_formats")}
        return cls(**{**document, **sequences})

    def to_json(self) -> str:
        """Return the JSON text."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """A node as the cluster sees it; times are milliseconds since 1970 by the server's clock.

    Attributes:
        seen_ms: Its last heartbeat.
        is_live: Whether that is younger than the time to live it came with.
        is_recovered: Whether its containers are all shown, as far as Redis remembers.
    """

    view: NodeView
    seen_ms: int
    is_live: bool
    is_recovered: bool

    def to_document(self) -> dict[str, Any]:
        """Return the JSON object for `provisioner nodes`."""
        return asdict(self.view) | {
            "seen_ms": self.seen_ms,
            "is_live": self.is_live,
            "is_recovered": self.is_recovered,
        }


class Nodes:
    """The nodes of one cluster.

    Args:
        client: May be shared by threads.
        key_prefix: What all keys start with; in braces, so that they share a hash slot.
        epoch: The node's part in it; only a node that shows itself has one.
    """

    def __init__(self, client: redis.Redis, key_prefix: str, *, epoch: Epoch | None = None) -> None:
        self._client = client
        self._prefix = key_prefix
        self._epoch = epoch
        self._nodes_key = f"{key_prefix}:nodes"
        self._recovery_key = f"{key_prefix}:nodes:recovery"
        self._heartbeat = script(client, "clock", "epoch", "node_heartbeat")
        self._mark_recovered = script(client, "node_mark_recovered")

    @redis_errors()
    def heartbeat(self, view: NodeView, *, ttl_seconds: float) -> bool:
        """Show the node as alive for `ttl_seconds` more.

        Returns:
            Whether the node is still marked as recovered. False, until `mark_recovered`: the worker has yet to run
            `recover`, or Redis lost its data and the worker must run it again.
        """
        arguments = (view.name, view.to_json(), round(ttl_seconds * 1000), *epoch_arguments(self._epoch))
        is_recovered, *nodes = self._heartbeat(keys=[self._prefix], args=arguments)
        if self._epoch is not None and nodes:
            self._epoch.note_peers([text_of(node) for node in nodes])
        elif self._epoch is not None:
            # A process that stood still may have put an older mark back on the disk, which keeps all others waiting.
            self._epoch.join()
        return bool(is_recovered)

    @redis_errors()
    def begin_recovery(self, node: str) -> str:
        """Take the mark off: the node's containers may not all be shown. Called before `recover` reads the disk.

        Returns:
            The token of this recovery.
        """
        if self._epoch is not None:
            self._epoch.join()
        token = secrets.token_hex(8)
        self._client.hset(self._recovery_key, node, f"recovering:{token}")
        return token

    @redis_errors()
    def mark_recovered(self, node: str, *, token: str) -> bool:
        """Set the mark: `recover` has shown all containers that the node's disk has.

        Returns:
            Whether it is set, not necessarily by this call. False: Redis lost its data since `begin_recovery`, so what
            `recover` showed may be gone and it must run again; or a later recovery began, which decides.
        """
        return bool(self._mark_recovered(keys=[self._prefix], args=[node, token]))

    @redis_errors()
    def is_known(self, node: str) -> bool:
        """Tell whether a node of this name was ever seen and not forgotten."""
        return bool(self._client.hexists(self._nodes_key, node))

    @redis_errors()
    def all(self) -> tuple[NodeStatus, ...]:
        """Return all nodes ever seen and not forgotten, live and gone, by name."""
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hgetall(self._nodes_key)
            pipeline.zrange(f"{self._nodes_key}:seen", 0, -1, withscores=True)
            pipeline.zrange(f"{self._nodes_key}:expiry", 0, -1, withscores=True)
            pipeline.hgetall(self._recovery_key)
            pipeline.time()
            rows, seen, expiry, recoveries, (seconds, microseconds) = pipeline.execute()
        now_ms, seen_ms, expires_ms = seconds * 1000 + microseconds // 1000, _scores(seen), _scores(expiry)
        statuses = (
            NodeStatus(
                view=NodeView.from_json(text),
                seen_ms=seen_ms[name],
                is_live=now_ms < expires_ms[name],
                is_recovered=_is_mark(recoveries.get(name, b"")),
            )
            for name, text in rows.items()
        )
        return tuple(sorted(statuses, key=lambda status: status.view.name))

    def stores(self) -> dict[str, tuple[NodeView, ...]]:
        """Return the live nodes by the identity of their store; whoever needs a store can ask any of them."""
        by_store: defaultdict[str, list[NodeView]] = defaultdict(list)
        for status in self.all():
            if status.is_live:
                by_store[status.view.store_id].append(status.view)
        return {store_id: tuple(views) for store_id, views in by_store.items()}

    @redis_errors()
    def forget(self, node: str) -> None:
        """Remove the node from the registry; its containers stay shown.

        A live node is back with its next heartbeat, not recovered.
        """
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hdel(self._nodes_key, node)
            pipeline.zrem(f"{self._nodes_key}:seen", node)
            pipeline.zrem(f"{self._nodes_key}:expiry", node)
            pipeline.hdel(self._recovery_key, node)
            pipeline.execute()


def _scores(entries: list[tuple[Any, float]]) -> dict[Any, int]:
    """Read scores by member; RESP2 and RESP3 answer pairs either way, as tuples or as lists."""
    return {name: int(score) for name, score in entries}


def _is_mark(recovery: str | bytes) -> bool:
    text = recovery.decode() if isinstance(recovery, bytes) else recovery
    return text.startswith("recovered:")
