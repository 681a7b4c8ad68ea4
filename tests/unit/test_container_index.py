# SPDX-License-Identifier: Apache-2.0
"""Tests of listings: complete over many pages, by node and by state, while containers change."""

from itertools import islice

import pytest
import redis

from worker.container_id import ContainerId
from worker.container_index import PAGE, ContainerIndex
from worker.containers import Containers, ContainerState, ContainerView

pytestmark = pytest.mark.redis

PREFIX = "{provisioner:test}"
ROOTFSES = {"rootfs": ("docker.io/library/one:1", "{}")}


@pytest.fixture
def containers(redis_client: redis.Redis) -> Containers:
    """Containers of an emptied server."""
    return Containers(redis_client, PREFIX)


def fill(containers: Containers, *, node: str, count: int) -> list[str]:
    """Show so many containers on the node and return their ids in order."""
    ids = [f"{node.replace('.', '-')}-{number:05}" for number in range(count)]
    for text in ids:
        containers.restore(ContainerId.parse(text), node=node, generation="g", rootfses=ROOTFSES)
    return ids


def ids_of(views: list[ContainerView]) -> list[str]:
    """Return the ids in the order listed."""
    return [str(view.container_id) for view in views]


def test_a_listing_has_all_containers_of_all_pages(containers: Containers) -> None:
    """By node and id, or a node's only, however its name begins; without infos, and no more than asked for."""
    first = fill(containers, node="n", count=PAGE + 20)
    second = fill(containers, node="n.1", count=3)

    assert ids_of(list(containers.list())) == first + second
    assert ids_of(list(containers.list(node="n"))) == first
    assert ids_of(list(containers.list(node="n.1", limit=2))) == second[:2]
    assert list(containers.list(limit=0)) == []
    assert list(containers.list(node="other")) == []
    assert not any(view.infos for view in containers.list())


def test_a_nodes_containers_are_counted_without_being_listed(containers: Containers, redis_client: redis.Redis) -> None:
    """However many there are, and however other nodes' names begin."""
    fill(containers, node="n", count=30)
    fill(containers, node="n.1", count=3)
    index = ContainerIndex(redis_client, PREFIX)

    assert [index.count(node) for node in ("n", "n.1", "other")] == [30, 3, 0]


def test_a_state_is_listed_by_the_time_of_change(containers: Containers) -> None:
    """All of them over several pages, the longest unchanged first; a node may be asked for besides."""
    first = fill(containers, node="n", count=PAGE + 20)
    second = fill(containers, node="m", count=3)
    containers.begin_provision(ContainerId.parse("begun"), name="r", image="i", node="n", request="")

    listed = list(containers.list(state=ContainerState.PROVISIONED))

    assert sorted(ids_of(listed)) == sorted(first + second)
    assert [view.changed_ms for view in listed] == sorted(view.changed_ms for view in listed)
    assert ids_of(list(containers.list(state=ContainerState.PROVISIONED, node="m"))) == second
    assert ids_of(list(containers.list(state=ContainerState.PROVISIONING))) == ["begun"]


def test_containers_that_changed_in_the_same_millisecond_are_all_listed(
    containers: Containers, redis_client: redis.Redis
) -> None:
    """A page may end in the middle of a millisecond, and a millisecond may fill more than a page."""
    ids = fill(containers, node="n", count=2 * PAGE + 20)
    redis_client.zadd(f"{PREFIX}:containers:provisioned", dict.fromkeys(ids, 1_700_000_000_000))

    listed = ids_of(list(containers.list(state=ContainerState.PROVISIONED)))

    assert listed == ids


def test_what_goes_and_comes_during_a_listing_hides_nothing_else(containers: Containers) -> None:
    """Containers that are there all the time are listed exactly once."""
    ids = fill(containers, node="n", count=2 * PAGE)
    listing = containers.list()
    listed = ids_of(list(islice(listing, 10)))

    for text in (*ids[:5], *ids[-5:]):
        containers.begin_destroy(ContainerId.parse(text), node="n")
        containers.finish_destroy(ContainerId.parse(text))
    containers.restore(ContainerId.parse("a-new-one"), node="n", generation="g", rootfses=ROOTFSES)
    listed += ids_of(list(listing))

    assert listed == ids[:-5]


def test_clients_that_decode_see_the_same(containers: Containers, redis_client: redis.Redis) -> None:
    """It does not matter whether the client answers bytes or text."""
    ids = fill(containers, node="n", count=3)
    pool = redis_client.connection_pool.connection_kwargs
    with redis.Redis(host=pool["host"], port=pool["port"], decode_responses=True) as client:
        decoding = Containers(client, PREFIX)

        assert list(decoding.list()) == list(containers.list())
        assert decoding.get(ContainerId.parse(ids[0])) == containers.get(ContainerId.parse(ids[0]))
        assert decoding.begin_destroy(ContainerId.parse(ids[0]), node="n").order == (ContainerId.parse(ids[0]),)
        assert decoding.is_destroying(ContainerId.parse(ids[0]), generation="g")


def test_a_container_takes_little_memory(containers: Containers, redis_client: redis.Redis) -> None:
    """With an image of up to 64 characters its hash stays a listpack: a fraction of a table of fields."""
    container_id = ContainerId.parse("pod")
    rootfses = {"rootfs": ("docker.io/library/python:3.12-slim", "{}" * 2000)}
    containers.restore(container_id, node="n", generation="0123456789abcdef", rootfses=rootfses)

    assert redis_client.object("encoding", f"{PREFIX}:container:pod") == b"listpack"
    assert redis_client.memory_usage(f"{PREFIX}:container:pod") < 500
