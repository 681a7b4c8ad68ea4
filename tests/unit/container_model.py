# SPDX-License-Identifier: Apache-2.0
"""What `worker/lua/container_tree.lua` promises: a check of its invariants on a server, and a model of it in Python."""

# ruff: noqa: D102 - the methods are the transitions, documented in `Containers`

from collections.abc import Mapping
from dataclasses import dataclass, field

import redis

from worker.container_id import ContainerId
from worker.containers import (
    BeginKind,
    BeginOutcome,
    ContainerState,
    ContainerView,
    DestroyKind,
    DestroyOutcome,
    RestoreKind,
    RestoreOutcome,
)

Rootfses = Mapping[str, tuple[str, str]]


def check_invariants(client: redis.Redis, prefix: str) -> None:
    """Assert that every index says what the hashes say, and that the invariants between transitions hold."""
    hashes = _hashes(client, f"{prefix}:container:")
    infos = _hashes(client, f"{prefix}:infos:")
    for state in ContainerState:
        entries: list[tuple[bytes, float]] = client.zrange(f"{prefix}:containers:{state}", 0, -1, withscores=True)
        shown = {member.decode(): int(score) for member, score in entries}
        assert shown == {key: int(row["changed_ms"]) for key, row in hashes.items() if row["state"] == state}
    tree = [member.decode() for member in client.zrange(f"{prefix}:containers", 0, -1)]
    assert tree == sorted(f"{row['node']} {key}" for key, row in hashes.items())
    assert {key: set(row) for key, row in infos.items()} == {
        key: names for key, row in hashes.items() if (names := _names(row, "image:"))
    }
    for key, row in hashes.items():
        _check_row(hashes, key, row)


def _check_row(hashes: dict[str, dict[str, str]], key: str, row: dict[str, str]) -> None:
    assert row["generation"]
    assert int(row["created_ms"]) <= int(row["changed_ms"])
    assert _names(row, "pending:") == _names(row, "request:")
    if parent := key.rpartition(".")[0]:
        assert hashes[parent]["node"] == row["node"], f"{key} is not where its parent is"
        assert hashes[parent]["state"] != "destroying" or row["state"] == "destroying"
    if row["state"] == "holder":
        assert any(other.startswith(f"{key}.") for other in hashes), f"{key} holds nothing"
    if row["state"] != "destroying":
        has_pending, has_image = bool(_names(row, "pending:")), bool(_names(row, "image:"))
        assert row["state"] == ("provisioning" if has_pending else "provisioned" if has_image else "holder")


def _hashes(client: redis.Redis, prefix: str) -> dict[str, dict[str, str]]:
    keys = [key.decode() for key in client.scan_iter(match=f"{prefix}*")]
    return {
        key.removeprefix(prefix): {name.decode(): value.decode() for name, value in client.hgetall(key).items()}
        for key in keys
    }


def _names(row: dict[str, str], prefix: str) -> set[str]:
    return {key.removeprefix(prefix) for key in row if key.startswith(prefix)}


@dataclass
class Row:
    """One container of the model; its generation is learnt from the server when it appears."""

    node: str
    generation: str = ""
    pending: dict[str, str] = field(default_factory=dict)
    rootfses: dict[str, tuple[str, str]] = field(default_factory=dict)
    attempts: int = 0
    is_destroying: bool = False

    @property
    def state(self) -> ContainerState:
        if self.is_destroying:
            return ContainerState.DESTROYING
        if self.pending:
            return ContainerState.PROVISIONING
        return ContainerState.PROVISIONED if self.rootfses else ContainerState.HOLDER


class Model:
    """The transitions as plain Python over a dict, written from the docstrings of `Containers`."""

    def __init__(self) -> None:
        self.rows: dict[ContainerId, Row] = {}

    def begin_provision(self, container_id: ContainerId, *, name: str, image: str, node: str) -> BeginOutcome:
        if (doomed := self.doomed(container_id)) is not None:
            return BeginOutcome(kind=BeginKind.DESTROYING, container_id=doomed)
        if (owner := self.node_of(container_id)) not in (None, node):
            return BeginOutcome(kind=BeginKind.ELSEWHERE, node=str(owner))
        row = self.rows.get(container_id, Row(node))
        taken = row.pending.get(name) or row.rootfses.get(name, (None,))[0]
        if taken not in (None, image):
            return BeginOutcome(kind=BeginKind.CONFLICT, image=str(taken))
        if name in row.rootfses:
            return BeginOutcome(kind=BeginKind.PROVISIONED, info=row.rootfses[name][1])
        self._ensure(container_id, node).pending[name] = image
        return BeginOutcome(kind=BeginKind.BEGUN, generation=row.generation)

    def finish_provision(self, container_id: ContainerId, *, name: str, image: str, generation: str, info: str) -> bool:
        row = self._current(container_id, generation)
        if row is None:
            return False
        if row.pending.get(name) == image:
            del row.pending[name]
            row.rootfses[name] = (image, info)
            row.attempts = 0
        return row.rootfses.get(name) == (image, info)

    def abort_provision(self, container_id: ContainerId, *, name: str, image: str, generation: str) -> None:
        row = self._current(container_id, generation)
        if row is not None and row.pending.get(name) == image:
            del row.pending[name]
            self._settle(container_id)

    def note_failure(self, container_id: ContainerId, *, generation: str) -> None:
        row = self.rows.get(container_id)
        if row is not None and row.generation == generation and (row.pending or row.is_destroying):
            row.attempts += 1

    def begin_destroy(self, container_id: ContainerId, *, node: str) -> DestroyOutcome:
        if (owner := self.node_of(container_id)) not in (None, node):
            return DestroyOutcome(kind=DestroyKind.ELSEWHERE, node=str(owner))
        if container_id not in self.rows:
            return DestroyOutcome(kind=DestroyKind.ABSENT)
        order = sorted(self._below(container_id), key=str, reverse=True)
        for each in (*order, container_id):
            if not self.rows[each].is_destroying:
                self.rows[each].is_destroying, self.rows[each].attempts = True, 0
        return DestroyOutcome(kind=DestroyKind.MARKED, order=(*order, container_id))

    def finish_destroy(self, container_id: ContainerId) -> bool:
        row = self.rows.get(container_id)
        if row is None:
            return True
        if not row.is_destroying or self._below(container_id):
            return False
        self._remove(container_id)
        return True

    def restore(self, container_id: ContainerId, *, node: str, generation: str, rootfses: Rootfses) -> RestoreOutcome:
        row, doomed = self.rows.get(container_id), self.doomed(container_id)
        is_other = bool(rootfses) and (row is None or row.generation != generation)
        is_marked = row is not None and row.is_destroying and not is_other
        if doomed is not None and (is_marked or not rootfses):
            return RestoreOutcome(kind=RestoreKind.DESTROYING, container_id=doomed)
        if (owner := self.node_of(container_id)) not in (None, node):
            return RestoreOutcome(kind=RestoreKind.ELSEWHERE, node=str(owner))
        for ancestor in reversed(container_id.ancestors):
            self._unmark(ancestor)
        if is_other and container_id in self.rows:
            self.rows[container_id] = Row(node, generation)
        row = self._ensure(container_id, node)
        if rootfses:
            row.generation = generation
        row.rootfses = dict(rootfses)
        row.pending = {name: image for name, image in row.pending.items() if name not in rootfses}
        self._settle(container_id)
        return RestoreOutcome(kind=RestoreKind.RESTORED)

    def _unmark(self, container_id: ContainerId) -> None:
        row = self.rows.get(container_id)
        if row is not None and row.is_destroying:
            row.is_destroying = False
            self._settle(container_id)

    def forget(self, view: ContainerView, *, is_unchanged: bool) -> bool:
        row = self.rows.get(view.container_id)
        if row is None or (row.state is ContainerState.HOLDER and view.state is not ContainerState.HOLDER):
            return True
        if not is_unchanged or row.generation != view.generation or row.state is not view.state:
            return False
        if not self._below(view.container_id):
            self._remove(view.container_id)
            return True
        if row.state in (ContainerState.HOLDER, ContainerState.DESTROYING):
            return False
        self.rows[view.container_id] = Row(row.node, row.generation)
        return True

    def doomed(self, container_id: ContainerId) -> ContainerId | None:
        chain = (*container_id.ancestors, container_id)
        return next((each for each in chain if each in self.rows and self.rows[each].is_destroying), None)

    def node_of(self, container_id: ContainerId) -> str | None:
        row = self.rows.get(container_id) or self.rows.get(container_id.root)
        return row.node if row else None

    def _current(self, container_id: ContainerId, generation: str) -> Row | None:
        row = self.rows.get(container_id)
        return row if row is not None and row.generation == generation and not row.is_destroying else None

    def _ensure(self, container_id: ContainerId, node: str) -> Row:
        for each in (*container_id.ancestors, container_id):
            self.rows.setdefault(each, Row(node))
        return self.rows[container_id]

    def _below(self, container_id: ContainerId) -> list[ContainerId]:
        return [each for each in self.rows if container_id in each.ancestors]

    def _settle(self, container_id: ContainerId) -> None:
        row = self.rows[container_id]
        if row.state is ContainerState.HOLDER:
            row.attempts = 0
            if not self._below(container_id):
                self._remove(container_id)

    def _remove(self, container_id: ContainerId) -> None:
        del self.rows[container_id]
        parent = container_id.parent
        if parent is not None and parent in self.rows and self.rows[parent].state is ContainerState.HOLDER:
            self._settle(parent)
