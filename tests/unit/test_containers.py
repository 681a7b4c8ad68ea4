# SPDX-License-Identifier: Apache-2.0
"""Tests of the per-container state: every outcome of every transition, and an emptied server."""

from collections.abc import Callable, Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.unit.container_model import check_invariants
from worker.container_id import ContainerId
from worker.containers import (
    MAX_ERROR_CHARS,
    BeginKind,
    BeginOutcome,
    Containers,
    ContainerState,
    DestroyKind,
    DestroyOutcome,
    RestoreKind,
)
from worker.errors import StateUnavailable

pytestmark = pytest.mark.redis

PREFIX = "{provisioner:test}"
POD, CHILD, SIBLING = (ContainerId.parse(text) for text in ("pod", "pod.a.b", "pod.c"))
ONE, TWO = "docker.io/library/one:1", "docker.io/library/two:2"
INFO = '{"rootfs": "/r"}'


@pytest.fixture
def containers(redis_client: redis.Redis) -> Iterator[Containers]:
    """Containers of an emptied server; whatever the test did, indexes and hashes must agree afterwards."""
    yield Containers(redis_client, PREFIX)
    check_invariants(redis_client, PREFIX)


def begin(
    containers: Containers, container_id: ContainerId, *, name: str = "rootfs", image: str = ONE, node: str = "n1"
) -> BeginOutcome:
    """Begin a provision on n1, unless told otherwise."""
    return containers.begin_provision(container_id, name=name, image=image, node=node, request=f"request of {image}")


def provisioned(containers: Containers, container_id: ContainerId, *, name: str = "rootfs", image: str = ONE) -> str:
    """Provision and return the generation."""
    generation = begin(containers, container_id, name=name, image=image).generation
    assert containers.finish_provision(container_id, name=name, image=image, generation=generation, info=INFO)
    return generation


def state_of(containers: Containers, container_id: ContainerId) -> ContainerState | None:
    """Return the state shown, or None for no container."""
    view = containers.get(container_id)
    return view.state if view else None


def test_a_begun_provision_is_shown_with_its_image_and_request(containers: Containers) -> None:
    """BEGUN makes the name pending; the same request joins with the same generation."""
    outcome = begin(containers, POD)

    assert outcome.kind is BeginKind.BEGUN
    assert begin(containers, POD) == outcome
    view = containers.get(POD)
    assert view is not None
    assert (view.state, view.node, view.generation) == (ContainerState.PROVISIONING, "n1", outcome.generation)
    assert (view.pending, view.requests) == ({"rootfs": ONE}, {"rootfs": f"request of {ONE}"})
    assert view.created_ms == view.changed_ms


def test_a_finished_provision_answers_the_same_info_again(containers: Containers) -> None:
    """Asking again for the same container, name and image answers what was answered before."""
    generation = provisioned(containers, POD)

    again = containers.finish_provision(POD, name="rootfs", image=ONE, generation=generation, info=INFO)

    assert again
    assert begin(containers, POD) == BeginOutcome(kind=BeginKind.PROVISIONED, info=INFO)
    assert state_of(containers, POD) is ContainerState.PROVISIONED


def test_a_name_belongs_to_one_image(containers: Containers) -> None:
    """Another image for a name is a conflict, pending or there, and changes nothing."""
    begin(containers, POD, name="pending")
    provisioned(containers, POD, name="there")
    before = containers.get(POD)

    outcomes = [begin(containers, POD, name=name, image=TWO) for name in ("pending", "there")]

    assert outcomes == [BeginOutcome(kind=BeginKind.CONFLICT, image=ONE)] * 2
    assert containers.get(POD) == before


def test_a_container_with_a_pending_name_is_provisioning(containers: Containers) -> None:
    """Several names may be under way at once; the state says so until the last one is there."""
    provisioned(containers, POD, name="first")
    generation = begin(containers, POD, name="second", image=TWO).generation
    assert state_of(containers, POD) is ContainerState.PROVISIONING

    containers.finish_provision(POD, name="second", image=TWO, generation=generation, info=INFO)

    view = containers.get(POD)
    assert view is not None
    assert view.state is ContainerState.PROVISIONED
    assert view.images == {"first": ONE, "second": TWO}
    assert set(view.infos) == {"first", "second"}


def test_another_node_is_told_who_has_the_container(containers: Containers) -> None:
    """A container and everything nested in it, known or not, belong to one node, for provision, destroy and restore."""
    begin(containers, CHILD)

    for container_id in (POD, CHILD, SIBLING):
        assert begin(containers, container_id, node="n2") == BeginOutcome(kind=BeginKind.ELSEWHERE, node="n1")
        destroy = containers.begin_destroy(container_id, node="n2")
        assert destroy == DestroyOutcome(kind=DestroyKind.ELSEWHERE, node="n1")
        assert containers.restore(container_id, node="n2", generation="", rootfses={}).kind is RestoreKind.ELSEWHERE
        assert containers.node_of(container_id) == "n1"
    assert containers.node_of(ContainerId.parse("other")) is None


def test_unknown_ancestors_become_holders(containers: Containers) -> None:
    """Ancestors show from the first provision below them, and provisioning into one makes it a container."""
    begin(containers, CHILD)
    assert [state_of(containers, each) for each in CHILD.ancestors] == [ContainerState.HOLDER] * 2

    begin(containers, POD)

    assert state_of(containers, POD) is ContainerState.PROVISIONING


def test_an_aborted_provision_leaves_nothing(containers: Containers, redis_client: redis.Redis) -> None:
    """The hash goes with its only name, and the holders above it with their only descendant."""
    generation = begin(containers, CHILD).generation

    for _ in range(2):
        containers.abort_provision(CHILD, name="rootfs", image=ONE, generation=generation)

    assert redis_client.keys() == [f"{PREFIX}:epoch".encode()]


def test_an_aborted_parent_becomes_a_holder(containers: Containers) -> None:
    """A container with something nested in it stays to hold it, its failures forgotten."""
    generation = begin(containers, POD).generation
    containers.note_failure(POD, generation=generation, error="boom", retry_in_seconds=1)
    begin(containers, CHILD)

    containers.abort_provision(POD, name="rootfs", image=ONE, generation=generation)

    view = containers.get(POD)
    assert view is not None
    assert (view.state, view.attempts, view.last_error) == (ContainerState.HOLDER, 0, "")


def test_an_abort_leaves_other_names_and_other_generations_alone(containers: Containers) -> None:
    """What is there, what another generation began and what another image made pending stay."""
    generation = provisioned(containers, POD, name="there")
    begin(containers, POD, name="pending", image=TWO)
    before = containers.get(POD)

    containers.abort_provision(POD, name="there", image=ONE, generation=generation)
    containers.abort_provision(POD, name="pending", image=ONE, generation=generation)
    containers.abort_provision(POD, name="pending", image=TWO, generation="other")

    assert containers.get(POD) == before


@pytest.mark.parametrize("loss", ["gone", "another generation", "destroying", "aborted", "another image", "other info"])
def test_a_provision_that_lost_its_container_cannot_finish(containers: Containers, loss: str) -> None:
    """Whatever came in between, the late finish is told and changes nothing."""
    generation = begin(containers, POD).generation
    if loss in ("gone", "another generation", "destroying"):
        containers.begin_destroy(POD, node="n1")
    if loss in ("gone", "another generation"):
        containers.finish_destroy(POD)
    if loss == "another generation":
        begin(containers, POD)
    if loss in ("aborted", "another image"):
        begin(containers, POD, name="second")
        containers.abort_provision(POD, name="rootfs", image=ONE, generation=generation)
    if loss == "another image":
        begin(containers, POD, image=TWO)
    if loss == "other info":
        containers.finish_provision(POD, name="rootfs", image=ONE, generation=generation, info="{}")
    before = containers.get(POD)

    is_current = containers.finish_provision(POD, name="rootfs", image=ONE, generation=generation, info=INFO)

    assert not is_current
    assert containers.get(POD) == before


def test_failures_are_shown_until_the_next_success(containers: Containers) -> None:
    """Attempts, the bounded last error and the time of the retry show; the retry's begin and success clear them."""
    generation = begin(containers, POD).generation
    containers.note_wait(POD, generation=generation, waits_for="layer sha256:1")
    containers.note_failure(POD, generation=generation, error="first", retry_in_seconds=None)
    containers.note_failure(POD, generation=generation, error="\udcff" + "x" * 600, retry_in_seconds=2.5)

    failed = containers.get(POD)
    begin(containers, POD)
    retried = containers.get(POD)
    containers.finish_provision(POD, name="rootfs", image=ONE, generation=generation, info=INFO)
    finished = containers.get(POD)

    assert failed is not None
    assert retried is not None
    assert finished is not None
    assert (failed.attempts, failed.last_error) == (2, "?" + "x" * (MAX_ERROR_CHARS - 1))
    assert failed.retry_at_ms is not None
    assert failed.retry_at_ms >= failed.changed_ms + 2500
    assert (retried.attempts, retried.retry_at_ms) == (2, None)
    assert (finished.attempts, finished.last_error, finished.waits_for) == (0, "", "")


def test_what_a_provision_waits_for_is_shown_while_it_waits(containers: Containers) -> None:
    """It shows and goes again; another generation's word does not count."""
    generation = begin(containers, POD).generation

    shown = []
    for waits_for, by in (("the lock", generation), ("nothing", "other"), ("", generation)):
        containers.note_wait(POD, generation=by, waits_for=waits_for)
        view = containers.get(POD)
        shown.append(view and view.waits_for)

    assert shown == ["the lock", "the lock", ""]


def test_destroy_marks_the_whole_tree_children_first(containers: Containers) -> None:
    """All nested containers and none besides are marked, every child is listed before its parent, twice the same."""
    for text in ("pod", "pod.a.b", "pod.a-b", "pod-a", "podx", "pod.a.c"):
        begin(containers, ContainerId.parse(text))

    outcomes = [containers.begin_destroy(POD, node="n1") for _ in range(2)]

    order = [str(container_id) for container_id in outcomes[0].order]
    assert outcomes[0] == outcomes[1]
    assert set(order) == {"pod", "pod.a", "pod.a.b", "pod.a.c", "pod.a-b"}
    assert order[-1] == "pod"
    assert order.index("pod.a") > max(order.index("pod.a.b"), order.index("pod.a.c"))
    assert {str(view.container_id) for view in containers.list(state=ContainerState.DESTROYING)} == set(order)


def test_nothing_is_provisioned_below_what_is_being_destroyed(containers: Containers) -> None:
    """The outermost container being destroyed is named; the view for a pull under way says the same."""
    generation = begin(containers, CHILD).generation
    assert containers.is_current(CHILD, generation=generation)
    containers.begin_destroy(CHILD, node="n1")
    containers.begin_destroy(POD, node="n1")

    for container_id in (POD, CHILD, SIBLING):
        assert begin(containers, container_id) == BeginOutcome(kind=BeginKind.DESTROYING, container_id=POD)
        assert containers.restore(container_id, node="n1", generation="", rootfses={}).container_id == POD
        assert containers.is_destroying(container_id, generation="") == (container_id != SIBLING)
    assert not containers.is_current(CHILD, generation=generation)


def test_a_destroyed_tree_leaves_nothing(containers: Containers, redis_client: redis.Redis) -> None:
    """Children first, each finish may be repeated; a parent cannot go before its children."""
    provisioned(containers, POD)
    provisioned(containers, CHILD)
    order = containers.begin_destroy(POD, node="n1").order
    assert not containers.finish_destroy(POD)

    answers = [containers.finish_destroy(container_id) for container_id in order for _ in range(2)]

    assert all(answers)
    assert redis_client.keys() == [f"{PREFIX}:epoch".encode()]
    assert containers.begin_destroy(POD, node="n1").kind is DestroyKind.ABSENT


def test_a_destroyed_child_takes_only_holders_with_it(containers: Containers) -> None:
    """An ancestor that only held the child goes; one with a rootfs or another child stays."""
    provisioned(containers, POD)
    provisioned(containers, CHILD)
    containers.begin_destroy(CHILD, node="n1")

    containers.finish_destroy(CHILD)

    assert [str(view.container_id) for view in containers.list()] == ["pod"]


def test_only_what_is_marked_can_be_destroyed(containers: Containers) -> None:
    """A late finish_destroy does not take a container that was provisioned anew."""
    provisioned(containers, POD)

    assert not containers.finish_destroy(POD)
    assert state_of(containers, POD) is ContainerState.PROVISIONED


def test_restore_shows_what_the_disk_has(containers: Containers) -> None:
    """Rootfses on disk show, with holders above them; those not on disk go; other pending names stay."""
    generation = begin(containers, CHILD, name="finished").generation
    begin(containers, CHILD, name="under way")
    provisioned(containers, CHILD, name="lost")

    outcomes = [
        containers.restore(CHILD, node="n1", generation=generation, rootfses={"finished": (ONE, INFO)})
        for _ in range(2)
    ]

    view = containers.get(CHILD)
    assert view is not None
    assert [outcome.kind for outcome in outcomes] == [RestoreKind.RESTORED] * 2
    assert (view.images, view.infos) == ({"finished": ONE}, {"finished": INFO})
    assert (view.pending, view.generation) == ({"under way": ONE}, generation)


def test_restoring_what_is_shown_changes_nothing(containers: Containers) -> None:
    """A recover of a healthy node leaves the times of change alone."""
    provisioned(containers, CHILD)
    before = containers.get(CHILD)
    assert before is not None

    containers.restore(CHILD, node="n1", generation=before.generation, rootfses={"rootfs": (ONE, INFO)})

    assert containers.get(CHILD) == before


def test_an_emptied_server_is_rebuilt_from_disk(containers: Containers, redis_client: redis.Redis) -> None:
    """After FLUSHALL a provision under way is told that it lost, and restore brings the rest back."""
    on_disk = provisioned(containers, CHILD)
    generation = begin(containers, POD).generation
    redis_client.flushall()
    redis_client.script_flush()

    is_current = containers.finish_provision(POD, name="rootfs", image=ONE, generation=generation, info=INFO)
    containers.restore(CHILD, node="n1", generation=on_disk, rootfses={"rootfs": (ONE, INFO)})

    assert not is_current
    assert begin(containers, CHILD) == BeginOutcome(kind=BeginKind.PROVISIONED, info=INFO)
    assert state_of(containers, POD) is ContainerState.HOLDER


def test_forgetting_takes_what_the_disk_does_not_know(containers: Containers) -> None:
    """Kept and changed ones stay; one with kept descendants becomes their holder."""
    for text in ("gone", "kept", "parent", "parent.kept", "alone.gone"):
        provisioned(containers, ContainerId.parse(text))
    begin(containers, ContainerId.parse("changed"))
    seen = tuple(containers.list(node="n1"))
    provisioned(containers, ContainerId.parse("changed"), name="second")
    provisioned(containers, ContainerId.parse("new"))

    kept_ids = {ContainerId.parse("kept"), ContainerId.parse("parent.kept")}
    gone = containers.forget_absent(seen, kept_ids=kept_ids)

    assert {str(container_id) for container_id in gone} == {"gone", "parent", "alone", "alone.gone"}
    assert {str(view.container_id) for view in containers.list()} == {"changed", "kept", "new", "parent", "parent.kept"}
    assert state_of(containers, ContainerId.parse("parent")) is ContainerState.HOLDER
    assert set(containers.forget_absent(seen, kept_ids=kept_ids)) == set(gone)


def test_counts_say_how_many_are_in_each_state(containers: Containers) -> None:
    """Every state has a count, also one nobody is in."""
    provisioned(containers, POD)
    begin(containers, CHILD)

    assert containers.counts() == {
        ContainerState.PROVISIONING: 1,
        ContainerState.PROVISIONED: 1,
        ContainerState.DESTROYING: 0,
        ContainerState.HOLDER: 1,
    }


def test_an_unreachable_server_is_a_transient_error() -> None:
    """Whatever redis-py raises becomes StateUnavailable."""
    nowhere = Containers(redis.Redis(unix_socket_path="/nonexistent/redis.sock", retry=Retry(NoBackoff(), 0)), PREFIX)
    calls: list[Callable[[], object]] = [
        lambda: begin(nowhere, POD),
        lambda: nowhere.finish_provision(POD, name="rootfs", image=ONE, generation="g", info=INFO),
        lambda: nowhere.abort_provision(POD, name="rootfs", image=ONE, generation="g"),
        lambda: nowhere.note_failure(POD, generation="g", error="e", retry_in_seconds=None),
        lambda: nowhere.note_wait(POD, generation="g", waits_for="w"),
        lambda: nowhere.begin_destroy(POD, node="n1"),
        lambda: nowhere.finish_destroy(POD),
        lambda: nowhere.is_destroying(POD, generation="g"),
        lambda: nowhere.is_current(POD, generation="g"),
        lambda: nowhere.restore(POD, node="n1", generation="g", rootfses={}),
        lambda: nowhere.get(POD),
        lambda: nowhere.node_of(POD),
        nowhere.counts,
        lambda: list(nowhere.list()),
        lambda: list(nowhere.list(state=ContainerState.HOLDER)),
    ]

    for call in calls:
        with pytest.raises(StateUnavailable, match=r"redis\.sock"):
            call()
