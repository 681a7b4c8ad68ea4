# SPDX-License-Identifier: Apache-2.0
"""Reading containers from Redis by their indexes: page by page, nothing is scanned.

The keys are those of `worker/lua/container_tree.lua`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import redis

from worker.container_id import ContainerId
from worker.container_view import ContainerState, ContainerView, read_view
from worker.redis_errors import redis_errors, text_of

PAGE = 500
"""Containers read in one round trip of a listing."""


def texts_of(row: Mapping[Any, Any]) -> dict[str, str]:
    """Decode a hash."""
    return {text_of(key): text_of(value) for key, value in row.items()}


class ContainerIndex:
    """Pages of container ids and the views behind them; see `Containers` for the arguments."""

    def __init__(self, client: redis.Redis, key_prefix: str) -> None:
        self._client = client
        self._prefix = key_prefix

    def hash_key(self, container_id: object) -> str:
        """Return the key of a container's hash."""
        return f"{self._prefix}:container:{container_id}"

    def infos_key(self, container_id: object) -> str:
        """Return the key of a container's infos."""
        return f"{self._prefix}:infos:{container_id}"

    def state_key(self, state: ContainerState) -> str:
        """Return the key of the index of a state."""
        return f"{self._prefix}:containers:{state}"

    def pages_by_node(self, node: str | None) -> Iterator[list[str]]:
        """Walk the containers of a node, or of all, in the order of node and id.

        A page starts after the last member of the one before, so changes in between neither hide nor repeat others.
        """
        start, end = ("-", "+") if node is None else _range_of(node)
        while members := self._tree_page(start, end):
            yield [member.partition(" ")[2] for member in members]
            start = f"({members[-1]}"

    @redis_errors()
    def _tree_page(self, start: str, end: str) -> list[str]:
        members: Any = self._client.zrangebylex(f"{self._prefix}:containers", start, end, start=0, num=PAGE)
        return [text_of(member) for member in members]

    @redis_errors()
    def count(self, node: str) -> int:
        """Count the containers of a node, in any state. Cost: one round trip, whatever their number."""
        return int(self._client.zlexcount(f"{self._prefix}:containers", *_range_of(node)))

    def pages_by_state(self, state: ContainerState) -> Iterator[list[str]]:
        """Walk the containers of a state, the longest unchanged first.

        Several may have changed in the same millisecond as the last one of a page, so the next page starts with that
        millisecond and leaves out what was there already.
        """
        start, seen = 0, frozenset[str]()
        while page := [entry for entry in self._state_page(state, start, len(seen)) if entry[0] not in seen]:
            yield [text for text, _ in page]
            last = page[-1][1]
            seen = frozenset(text for text, at in page if at == last) | (seen if last == start else frozenset())
            start = last

    @redis_errors()
    def _state_page(self, state: ContainerState, start: int, extra: int) -> list[tuple[str, int]]:
        page: Any = self._client.zrange(
            self.state_key(state), start, "+inf", byscore=True, offset=0, num=PAGE + extra, withscores=True
        )
        return [(text_of(member), int(score)) for member, score in page]

    @redis_errors()
    def views(self, ids: Iterable[str]) -> list[ContainerView]:
        """Return the views, without infos, of those that are still there."""
        texts = list(ids)
        with self._client.pipeline(transaction=False) as pipeline:
            for text in texts:
                pipeline.hgetall(self.hash_key(text))
            rows = pipeline.execute()
        return [
            read_view(ContainerId.parse(text), texts_of(row), {}) for text, row in zip(texts, rows, strict=True) if row
        ]


def _range_of(node: str) -> tuple[str, str]:
    """Return the lexicographic range of a node's members, `<node> <id>`: `!` follows the blank."""
    return f"[{node} ", f"({node}!"
