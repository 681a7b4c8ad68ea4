# SPDX-License-Identifier: Apache-2.0
"""Waiting for a task's answer, with Celery's real result backend and a worker's hand in it."""

import threading

import pytest
from celery import states

from tests.unit.cli.conftest import Taken, take_task
from worker.cli.answers import TaskStatus, ask
from worker.cli.cluster import Cluster, make_app
from worker.cli.exits import ExitCode, Failure
from worker.errors import AnswerTimeout, ImageNotFound, StateUnavailable
from worker.settings import Settings

pytestmark = [
    pytest.mark.redis,
    # Celery 5.7 stores results with a command that redis-py 8.1 would rather not see.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]


class Hand:
    """Takes one task from the queue and stores what a worker would."""

    def __init__(self, cluster: Cluster, *steps: tuple[str, object]) -> None:
        self._cluster = cluster
        self._steps = steps
        self.taken: Taken | None = None
        self._seen = {state: threading.Event() for state, _ in steps}
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def on_status(self, status: TaskStatus) -> None:
        """Let the next step come once this one was seen."""
        if status.state in self._seen:
            self._seen[status.state].set()

    def _work(self) -> None:
        self.taken = take_task(self._cluster.client)
        for state, result in self._steps:
            self._cluster.app.backend.store_result(self.taken.task_id, result, state)
            if state not in states.READY_STATES:
                self._seen[state].wait(timeout=20)

    def join(self) -> None:
        """Wait for the end of its work."""
        self._thread.join(timeout=30)


def test_the_answer_of_a_task_sent_by_name_comes_back(cluster: Cluster) -> None:
    """The worker gets the name, the keywords and no positional arguments."""
    hand = Hand(cluster, (states.SUCCESS, {"rootfs": "/somewhere"}))

    answer = ask(cluster.app, "provision", {"container_id": "web-1"}, timeout_seconds=20)
    hand.join()

    assert answer == {"rootfs": "/somewhere"}
    assert hand.taken is not None
    assert hand.taken.name == "provisioner.provision"
    assert (hand.taken.arguments, hand.taken.keywords) == ([], {"container_id": "web-1"})


def test_every_state_on_the_way_is_shown(cluster: Cluster) -> None:
    """Started, progress with its numbers, success."""
    progress = {"bytes_fetched": 5, "bytes_total": 10, "layers_done": 1, "layers_total": 2}
    hand = Hand(cluster, (states.STARTED, None), ("PROGRESS", progress), (states.SUCCESS, True))
    seen: list[TaskStatus] = []

    def on_status(status: TaskStatus) -> None:
        seen.append(status)
        hand.on_status(status)

    assert ask(cluster.app, "pull", {}, timeout_seconds=20, on_status=on_status) is True
    hand.join()

    assert {status.state for status in seen} >= {states.STARTED, "PROGRESS", states.SUCCESS}
    assert next(status.info for status in seen if status.is_progress) == progress


def test_a_failed_task_gives_its_sentence_and_the_code_for_it(cluster: Cluster) -> None:
    """The error crosses the queue by name and message; people see the message only."""
    error = ImageNotFound(image="alpine:4", reason="no such tag")
    hand = Hand(cluster, (states.FAILURE, error))

    with pytest.raises(Failure, match=r"^image alpine:4 not found: no such tag$") as failed:
        ask(cluster.app, "provision", {}, timeout_seconds=20)
    hand.join()

    assert failed.value.exit_code == ExitCode.FAILED


def test_without_an_answer_in_time_the_task_is_named(cluster: Cluster) -> None:
    """It may still run: its id leads to its answer."""
    with pytest.raises(AnswerTimeout) as late:
        ask(cluster.app, "prune", {}, timeout_seconds=0.05)

    assert late.value.task == "provisioner.prune"
    assert str(late.value) == f"provisioner.prune ({late.value.task_id}) gave no answer within 0.05 s; it may still run"


def test_a_redis_that_is_not_there_takes_no_task() -> None:
    """The wait does not begin."""
    app = make_app(Settings(redis_url="redis://127.0.0.1:1/0", redis_timeout_seconds=0.2))

    with pytest.raises(StateUnavailable, match=r"provisioner\.prune was not sent"):
        ask(app, "prune", {}, timeout_seconds=5)
