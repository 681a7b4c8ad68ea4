# SPDX-License-Identifier: Apache-2.0
"""Tests of the per-container state under load: any sequence of transitions, races, and a reply that is lost."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.proxy import proxy_to
from tests.support.redis_server import RedisServer
from tests.unit.container_machine import ContainersMachine
from tests.unit.container_model import check_invariants
from worker.container_id import ContainerId
from worker.containers import BeginKind, BeginOutcome, Containers, ContainerState, DestroyKind, DestroyOutcome

pytestmark = pytest.mark.redis

PREFIX = "{provisioner:test}"
POD, CHILD = ContainerId.parse("pod"), ContainerId.parse("pod.a.b")
ONE = "docker.io/library/one:1"
INFO = '{"rootfs": "/r"}'


@pytest.fixture
def containers(redis_client: redis.Redis) -> Iterator[Containers]:
    """Containers of an emptied server; whatever the test did, indexes and hashes must agree afterwards."""
    yield Containers(redis_client, PREFIX)
    check_invariants(redis_client, PREFIX)


def begin(containers: Containers, container_id: ContainerId, *, image: str = ONE) -> BeginOutcome:
    """Begin a provision on n1, unless told otherwise."""
    return containers.begin_provision(container_id, name="rootfs", image=image, node="n1", request="r")


def test_any_sequence_of_transitions_does_what_the_model_does(redis_client: redis.Redis) -> None:
    """Transitions in any order, each sent twice, some with an emptied server in between, keep view and indexes true."""
    run_state_machine_as_test(
        lambda: ContainersMachine(redis_client),
        settings=settings(
            max_examples=80,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


def test_a_provision_and_a_destroy_beside_each_other_never_both_win(containers: Containers) -> None:
    """Either the destroy found nothing, or the provision was told, or the destroy took down what was provisioned."""

    def provision() -> bool:
        outcome = begin(containers, CHILD)
        return outcome.kind is BeginKind.BEGUN and containers.finish_provision(
            CHILD, name="rootfs", image=ONE, generation=outcome.generation, info=INFO
        )

    def destroy() -> DestroyOutcome:
        return containers.begin_destroy(POD, node="n1")

    seen = set()
    for _ in range(100):
        is_provisioned, destroyed = at_once(provision, destroy)
        state = getattr(containers.get(CHILD), "state", None)
        seen.add((is_provisioned, destroyed.kind))
        if destroyed.kind is DestroyKind.ABSENT:
            assert is_provisioned
            assert state is ContainerState.PROVISIONED
        else:
            assert state is ContainerState.DESTROYING
        for container_id in containers.begin_destroy(POD, node="n1").order:
            assert containers.finish_destroy(container_id)
    assert len(seen) > 1, "the two never met"


def test_one_image_wins_a_name(containers: Containers) -> None:
    """Of many provisions of one name at once, all with the winner's image begin and all others are in conflict."""
    images = [f"docker.io/library/image:{number % 4}" for number in range(16)]

    outcomes = at_once(*[lambda image=image: begin(containers, CHILD, image=image) for image in images])

    view = containers.get(CHILD)
    assert view is not None
    winner = view.pending["rootfs"]
    for image, outcome in zip(images, outcomes, strict=True):
        if image == winner:
            assert (outcome.kind, outcome.generation) == (BeginKind.BEGUN, view.generation)
        else:
            assert outcome == BeginOutcome(kind=BeginKind.CONFLICT, image=winner)


def test_a_command_sent_again_because_its_reply_was_lost_counts_once(shared_redis_server: RedisServer) -> None:
    """The client cannot know that the first one ran; the second one changes nothing more."""
    with proxy_to(shared_redis_server.port) as proxy:
        client = redis.Redis(port=proxy.port, socket_timeout=0.2, retry=Retry(NoBackoff(), 50))
        containers = Containers(client, "{provisioner:lost-reply}")
        generation = begin(containers, POD).generation
        containers.note_failure(POD, generation=generation, error="first", retry_in_seconds=None)

        sent = proxy.requests
        proxy.drops_replies = True
        with ThreadPoolExecutor() as executor:
            call = executor.submit(
                containers.note_failure, POD, generation=generation, error="second", retry_in_seconds=None
            )
            while proxy.requests < sent + 2 and not call.done():
                threading.Event().wait(0.01)
            proxy.drops_replies = False
            call.result()

        view = containers.get(POD)
        client.close()
    assert view is not None
    assert (view.attempts, view.last_error) == (2, "second")


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run the calls in threads that start together and return their results in order."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(max_workers=len(calls)) as executor:
        return list(executor.map(run, calls))
