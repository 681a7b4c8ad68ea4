# SPDX-License-Identifier: Apache-2.0
"""The order of an image's archives, against a model of it."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import InvalidImage
from worker.oci.appc import AppcReference
from worker.oci.appc_manifest import AppcDependency
from worker.oci.digest import Digest
from worker.pullers.appc.dependencies import MAX_DEPTH, MAX_IMAGES, resolve_order

Graph = dict[str, list[str]]
"""Names of what an image depends on, by its name."""


@dataclass(frozen=True)
class Node:
    """An archive that is nothing but its dependencies."""

    name: str
    dependencies: tuple[AppcDependency, ...]

    @property
    def image_id(self) -> Digest:
        """One for each name."""
        return Digest.of(self.name.encode(), algorithm="sha512")


def wanted(name: str) -> AppcDependency:
    """Return what asks for an image."""
    return AppcDependency(reference=AppcReference(name=name), size_bytes=None)


def ordered(graph: Graph, top: str) -> tuple[list[str], list[str]]:
    """Return the order of a graph's images, and what was loaded."""
    loaded = []

    def load(dependency: AppcDependency) -> Node:
        name = dependency.reference.name
        loaded.append(name)
        return Node(name, tuple(wanted(below) for below in graph[name]))

    return [node.name for node in resolve_order(wanted(top), load, image="i")], loaded


def model(graph: Graph, top: str) -> list[str]:
    """Lay every dependency down in turn, the ones that are there already not again."""
    found: list[str] = []
    for below in graph[top]:
        found += [name for name in model(graph, below) if name not in found]
    return [*found, top]


@st.composite
def acyclic_graphs(draw: st.DrawFn) -> Graph:
    """Graphs in which everything depends on later names only."""
    names = [f"n{number}" for number in range(draw(st.integers(1, 8)))]
    return {
        name: draw(st.lists(st.sampled_from(names[number + 1 :]), max_size=4)) if names[number + 1 :] else []
        for number, name in enumerate(names)
    }


@given(acyclic_graphs())
def test_the_order_is_that_of_the_model(graph: Graph) -> None:
    """Each image once and loaded once, below all that need it, dependencies in their order."""
    order, loaded = ordered(graph, "n0")

    assert order == model(graph, "n0")
    assert sorted(loaded) == sorted(order) == sorted(set(order))
    assert all(order.index(below) < order.index(name) for name in order for below in graph[name])


@given(acyclic_graphs(), st.data())
def test_any_circle_is_refused(graph: Graph, data: st.DataObject) -> None:
    """One edge back to an image that leads here closes it."""
    reachable = model(graph, "n0")
    end = data.draw(st.sampled_from(reachable))
    start = data.draw(st.sampled_from([name for name in reachable if end in model(graph, name)]))
    graph[end] = [*graph[end], start]

    with pytest.raises(InvalidImage, match=r"circle: .*\b(n\d) -> (?:.* -> )?\1$"):
        ordered(graph, "n0")


def test_bounds_hold() -> None:
    """As deep and as many as allowed, and one more."""
    chain: Graph = {f"n{number}": [f"n{number + 1}"] for number in range(MAX_DEPTH)} | {f"n{MAX_DEPTH}": []}
    assert len(ordered(chain, "n1")[0]) == MAX_DEPTH
    with pytest.raises(InvalidImage, match=f"more than {MAX_DEPTH} deep: n0 -> n1 .*… .* -> n{MAX_DEPTH}"):
        ordered(chain, "n0")

    leaves = [f"n{number}" for number in range(1, MAX_IMAGES + 1)]
    fan: Graph = {"n0": leaves[:-1], **{leaf: [] for leaf in leaves}}
    assert len(ordered(fan, "n0")[0]) == MAX_IMAGES
    with pytest.raises(InvalidImage, match=f"more than {MAX_IMAGES} images"):
        ordered({**fan, "n0": leaves}, "n0")


def test_many_ways_to_the_same_image_cost_nothing() -> None:
    """Thirty diamonds on top of each other have a thousand million paths."""
    graph: Graph = {f"n{number}": [f"l{number}", f"r{number}"] for number in range(15)} | {"n15": []}
    graph |= {f"{side}{number}": [f"n{number + 1}"] for number in range(15) for side in "lr"}

    order, loaded = ordered(graph, "n0")

    assert len(order) == len(loaded) == 46
