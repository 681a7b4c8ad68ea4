# SPDX-License-Identifier: Apache-2.0
"""The epoch of what Redis remembers: can a container that it does not show be taken for absent?

After Redis lost its data, or came back from an older copy, it shows too little until every node has shown again what
is on its disk. Meanwhile a destroy must not answer that there is no such container, and a provision must not make a
second one on another node. So an epoch begins whenever Redis is found empty; its id is kept in Redis and on each
node's disk, and where the two differ, or another run of the server answers, the cluster is *quiet* for a while: nodes
speak for what their own disk has, and everything else waits until all live nodes are recovered. That is over as soon as
all nodes have shown themselves that those knew, on their disks, that were there before.

A node that was down during the loss, and comes back later, is not waited for. A node with an empty disk that is the
first to come cannot tell an emptied Redis from a new one: it believes it, until one that remembers comes, a heartbeat
later.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from worker.errors import ViewIncomplete
from worker.linux import durable
from worker.lua import script
from worker.redis_errors import redis_errors, text_of


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochView:
    """An epoch as Redis sees it.

    Attributes:
        mark: The id and the run of the server: differs whenever something may have been lost in between.
        began_ms: When Redis was found empty, or its other run was; what it shows from before may be out of date.
        is_settled: Whether what is not shown is absent.
        wait_seconds: How long nodes have left to show themselves.
        waits_for: Live nodes that have yet to show their containers.
    """

    mark: str
    began_ms: int
    is_settled: bool
    wait_seconds: float
    waits_for: tuple[str, ...]

    def incomplete(self) -> ViewIncomplete:
        """Return the error for whoever needs to know about a container that is not shown."""
        nodes = f"node {', '.join(self.waits_for)}" if self.waits_for else "nodes"
        return ViewIncomplete(
            reason=f"it waits for {nodes} to show what is there",
            retry_after_seconds=max(self.wait_seconds, _SHORTEST_WAIT_SECONDS),
        )


_SHORTEST_WAIT_SECONDS = 0.5
_DEFAULT_QUIET_MS = 20_000


class Epoch:
    """One node's part in it.

    Args:
        client: May be shared by threads.
        key_prefix: What all keys start with; in braces, so that they share a hash slot.
        path: File that keeps the mark and the names of all nodes, a line each; below the node's work directory.
        quiet_seconds: How long nodes may take to show themselves: more than their heartbeats' interval.
    """

    def __init__(self, client: redis.Redis, key_prefix: str, *, path: Path, quiet_seconds: float) -> None:
        self._prefix = key_prefix
        self._path = path
        self._quiet_ms = round(quiet_seconds * 1000)
        self._join = script(client, "clock", "epoch", "epoch_join")

    def arguments(self) -> tuple[str, str, int]:
        """Return what scripts that look at the epoch are given: the known id, a fresh one, the quiet time in ms.

        Effect: a node that never was part of the cluster joins first, so that it is known to remember.
        """
        mark, _ = self._known()
        return _id_of(mark or self.join().mark), secrets.token_hex(8), self._quiet_ms

    @redis_errors()
    def join(self) -> EpochView:
        """Look at the epoch, and keep its mark on disk. Whoever does so has seen that the node is asked to recover."""
        known, peers = self._known()
        arguments: list[str | int] = [_id_of(known), secrets.token_hex(8), self._quiet_ms, known, *peers]
        answer: Any = self._join(keys=[self._prefix], args=arguments)
        mark, began_ms, is_settled, wait_ms, *waits_for = (text_of(each) for each in answer)
        if mark != known:
            self._keep(mark, peers)
        return EpochView(
            mark=mark,
            began_ms=int(began_ms),
            is_settled=is_settled == "1",
            wait_seconds=int(wait_ms) / 1000,
            waits_for=tuple(waits_for),
        )

    def note_peers(self, nodes: Collection[str]) -> None:
        """Keep the names of all nodes on disk, as Redis has them while it is settled."""
        mark, peers = self._known()
        if mark and set(nodes) != set(peers):
            self._keep(mark, sorted(nodes))

    def _known(self) -> tuple[str, list[str]]:
        try:
            mark, *peers = self._path.read_text().splitlines()
        except (FileNotFoundError, ValueError):
            return "", []
        return mark, peers

    def _keep(self, mark: str, peers: Collection[str]) -> None:
        durable.write_file(self._path, "\n".join((mark, *peers)).encode())


def _id_of(mark: str) -> str:
    return mark.partition(":")[0]


def epoch_arguments(epoch: Epoch | None) -> tuple[str, str, int]:
    """Return `Epoch.arguments`, or those of somebody who remembers nothing."""
    return ("", secrets.token_hex(8), _DEFAULT_QUIET_MS) if epoch is None else epoch.arguments()
