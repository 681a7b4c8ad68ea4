# SPDX-License-Identifier: Apache-2.0
"""Any sequence of transitions of containers, on a server and on the model side by side."""

# ruff: noqa: D102 - the rules are the transitions, documented in `Containers`

import dataclasses

import redis
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.container_model import Model, Row, check_invariants
from worker.container_id import ContainerId
from worker.containers import BeginKind, Containers, ContainerView

PREFIX = "{provisioner:model}"
IDS = st.sampled_from([ContainerId.parse(text) for text in ("a", "a.b", "a.b.c", "a.b-c", "a-b")])
NAMES = st.sampled_from(["rootfs", "image:volume"])
IMAGES = st.sampled_from(["docker.io/library/one:1", "docker.io/library/two:2"])
NODES = st.sampled_from(["n", "n", "n", "n.1"])
INFOS = st.sampled_from(['{"digest": "sha256:1"}', '{"digest": "sha256:2"}'])


class ContainersMachine(RuleBasedStateMachine):
    """Every transition is made twice and must answer the same; then server and model must show the same."""

    begun = Bundle("begun")
    seen = Bundle("seen")

    def __init__(self, client: redis.Redis) -> None:
        super().__init__()
        self.client = client
        self.containers = Containers(client, PREFIX)
        self.model = Model()

    @initialize()
    def empty(self) -> None:
        self.client.flushall()
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Look, as every node does before it shows anything."""
        self.containers.begin_destroy(ContainerId.parse("nothing"), node="n")

    @rule(target=begun, container_id=IDS, name=NAMES, image=IMAGES, node=NODES)
    def begin_provision(self, container_id: ContainerId, name: str, image: str, node: str) -> object:
        arguments = {"name": name, "image": image, "node": node}
        outcomes = [self.containers.begin_provision(container_id, **arguments, request="r") for _ in range(2)]
        expected = self.model.begin_provision(container_id, **arguments)
        assert outcomes[0] == outcomes[1]
        assert outcomes[0].kind == expected.kind
        if expected.kind is not BeginKind.BEGUN:
            assert outcomes[0] == expected
        self.learn_generations()
        return container_id, {"name": name, "image": image, "generation": outcomes[0].generation}

    @rule(begun=begun, info=INFOS)
    def finish_provision(self, begun: tuple[ContainerId, dict[str, str]], info: str) -> None:
        container_id, arguments = begun
        answers = {self.containers.finish_provision(container_id, **arguments, info=info) for _ in range(2)}
        assert answers == {self.model.finish_provision(container_id, **arguments, info=info)}

    @rule(begun=begun)
    def abort_provision(self, begun: tuple[ContainerId, dict[str, str]]) -> None:
        container_id, arguments = begun
        for _ in range(2):
            self.containers.abort_provision(container_id, **arguments)
        self.model.abort_provision(container_id, **arguments)

    @rule(begun=begun)
    def note_failure(self, begun: tuple[ContainerId, dict[str, str]]) -> None:
        container_id, arguments = begun
        generation = arguments["generation"]
        self.containers.note_failure(container_id, generation=generation, error="e", retry_in_seconds=1.0)
        self.model.note_failure(container_id, generation=generation)

    @rule(container_id=IDS, node=NODES)
    def begin_destroy(self, container_id: ContainerId, node: str) -> None:
        outcomes = [self.containers.begin_destroy(container_id, node=node) for _ in range(2)]
        expected = self.model.begin_destroy(container_id, node=node)
        assert [dataclasses.replace(outcome, epoch="") for outcome in outcomes] == [expected] * 2

    @rule(container_id=IDS)
    def finish_destroy(self, container_id: ContainerId) -> None:
        answers = {self.containers.finish_destroy(container_id) for _ in range(2)}
        assert answers == {self.model.finish_destroy(container_id)}

    @rule(
        container_id=IDS, node=NODES, rootfses=st.dictionaries(NAMES, st.tuples(IMAGES, INFOS)), is_other=st.booleans()
    )
    def restore(
        self, container_id: ContainerId, node: str, rootfses: dict[str, tuple[str, str]], *, is_other: bool
    ) -> None:
        row = self.model.rows.get(container_id)
        on_disk = {"generation": "other" if row is None or is_other else row.generation, "rootfses": rootfses}
        outcomes = [self.containers.restore(container_id, node=node, **on_disk) for _ in range(2)]
        assert outcomes == [self.model.restore(container_id, node=node, **on_disk)] * 2
        self.learn_generations()

    @rule(target=seen, node=NODES)
    def see(self, node: str) -> tuple[ContainerView, ...]:
        return tuple(self.containers.list(node=node))

    @rule(seen=seen, kept_ids=st.sets(IDS))
    def forget_absent(self, seen: tuple[ContainerView, ...], kept_ids: set[ContainerId]) -> None:
        now = {view.container_id: view.changed_ms for view in self.containers.list()}
        expected = tuple(
            view.container_id
            for view in sorted(seen, key=lambda view: -len(view.container_id.parts))
            if view.container_id not in kept_ids
            and self.model.forget(view, is_unchanged=now.get(view.container_id) == view.changed_ms)
        )
        assert self.containers.forget_absent(seen, kept_ids=kept_ids) == expected

    @rule(is_now=st.sampled_from([False, False, False, False, False, True]))
    def lose_everything(self, is_now: bool) -> None:
        if not is_now:
            return
        self.client.flushall()
        self.client.script_flush()
        self.begin_epoch()
        self.model.rows.clear()

    @invariant()
    def indexes_are_consistent(self) -> None:
        check_invariants(self.client, PREFIX)

    @invariant()
    def shows_what_the_model_shows(self) -> None:
        views = {view.container_id: view for view in self.containers.list()}
        assert {key: _shown(view, self.containers.get(key)) for key, view in views.items()} == {
            key: _modelled(row) for key, row in self.model.rows.items()
        }

    @invariant()
    def knows_what_is_destroyed(self) -> None:
        for container_id in map(ContainerId.parse, ("a", "a.b", "a.b.c", "a-b")):
            row = self.model.rows.get(container_id)
            for generation in ("", row.generation if row else "none", "other"):
                is_this = row is not None and generation in ("", row.generation)
                is_marked = self.containers.is_destroying(container_id, generation=generation)
                assert is_marked == (is_this and row is not None and row.is_destroying)
            assert self.containers.node_of(container_id) == self.model.node_of(container_id)

    def learn_generations(self) -> None:
        """Tell the model the generations of what has just appeared; from then on they must stay."""
        for container_id, row in self.model.rows.items():
            view = self.containers.get(container_id)
            row.generation = row.generation or (view.generation if view else "")


def _shown(view: ContainerView, whole: ContainerView | None) -> tuple[object, ...]:
    assert whole is not None
    images = {name: (image, whole.infos[name]) for name, image in view.images.items()}
    return view.state, view.node, view.generation, dict(view.pending), images, view.attempts


def _modelled(row: Row) -> tuple[object, ...]:
    return row.state, row.node, row.generation, row.pending, row.rootfses, row.attempts
