# SPDX-License-Identifier: Apache-2.0
"""Retries wait as long as they should."""

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from celery import Celery
from celery.exceptions import Ignore, Reject, Retry
from hypothesis import given
from hypothesis import strategies as st
from kombu.exceptions import OperationalError
from redis.exceptions import OutOfMemoryError

from tasks.base import PatientTask, retry_delay
from tasks.rootfs import provision
from tests.support.provisioners import provisioner, small_layout
from worker.container_id import ContainerId
from worker.errors import RegistryUnavailable
from worker.provisioner import Provisioner
from worker.runtime import process_provisioner
from worker.settings import process_settings


@given(retries=st.integers(0, 60), asked=st.none() | st.floats(0, 500))
def test_a_delay_grows_is_bounded_and_honours_the_server(retries: int, asked: float | None) -> None:
    """Between half and all of the backoff, and never less than Retry-After."""
    error = RegistryUnavailable(registry="r", reason="busy")
    error.retry_after_seconds = asked

    delay = retry_delay(retries, base=1.0, longest=60.0, error=error)

    backoff = min(60.0, 2.0**retries)
    assert max(backoff / 2, asked or 0.0) <= delay <= max(backoff, asked or 0.0)


class Refused:
    """A message that cannot be published three times."""

    def __init__(self) -> None:
        self.failures: Iterator[Exception] = iter([OperationalError("away"), OutOfMemoryError("full"), OSError("cut")])
        self.is_published = False

    def apply_async(self, **_: object) -> None:
        """Be published, in the end."""
        for failure in self.failures:
            raise failure
        self.is_published = True

    delay = apply_async


@pytest.fixture
def task() -> Iterator[PatientTask]:
    """A task that runs."""

    def nothing(self: PatientTask) -> None:
        """Do nothing."""

    made = Celery("tasks", set_as_current=False, task_cls=PatientTask).task(name="any", bind=True, shared=False)(
        nothing
    )
    made.push_request(id="t", called_directly=False, is_eager=False, retries=0)
    yield made
    made.pop_request()


def test_a_retry_is_published_however_long_redis_refuses(task: PatientTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery would reject the task's message for good."""
    refused = Refused()
    monkeypatch.setattr(task, "signature_from_request", lambda *_, **__: refused)

    with pytest.raises(Retry):
        task.retry()

    assert refused.is_published


def test_what_takes_a_tasks_place_is_published_however_long_redis_refuses(task: PatientTask) -> None:
    """Celery would let the task fail."""
    refused = Refused()

    with pytest.raises(Ignore):
        task.on_replace(refused)

    assert refused.is_published


def test_a_last_attempt_ends_with_its_error(task: PatientTask) -> None:
    """Also with one that might have come from publishing."""
    with pytest.raises(ConnectionResetError):
        task.retry(exc=ConnectionResetError(), max_retries=-1)


def test_what_can_never_be_published_is_not_tried_for_ever(task: PatientTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is laid aside, and whoever waits is told."""
    refused = Refused()
    refused.failures = iter([TypeError("not JSON")])
    monkeypatch.setattr(task, "signature_from_request", lambda *_, **__: refused)

    with pytest.raises(Reject) as raised:
        task.retry()

    assert not raised.value.requeue


@pytest.mark.root
@pytest.mark.redis
def test_an_error_that_nobody_foresaw_leaves_nothing_of_a_provision(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not known whether a retry would help, so there is none, and what was begun is undone."""
    keywords = {"container_id": "c1", "image": small_layout(tmp_path / "layout")}
    for name, value in (("REDIS_URL", redis_url), ("WORK_DIR", tmp_path / "work"), ("STORE_DIR", tmp_path / "store")):
        monkeypatch.setenv(f"PROVISIONER_{name}", str(value))
    monkeypatch.setenv("PROVISIONER_NODE", "n1")

    def fails(node: Provisioner) -> NoReturn:
        node.node.containers.begin_provision(
            ContainerId.parse("c1"), name="rootfs", image=str(keywords["image"]), node="n1", request="{}"
        )
        raise RuntimeError("unforeseen")

    process_settings.cache_clear()
    try:
        with provisioner(tmp_path, redis_url) as node:
            provision.push_request(args=(), kwargs=keywords)
            with pytest.raises(RuntimeError, match="unforeseen"):
                provision.run_here_or_forward(fails)

            assert node.node.containers.get(ContainerId.parse("c1")) is None
    finally:
        provision.pop_request()
        process_provisioner(process_settings()).node.containers._client.close()
        process_settings.cache_clear()
