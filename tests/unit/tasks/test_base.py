# SPDX-License-Identifier: Apache-2.0
"""Retries wait as long as they should."""

from pathlib import Path
from typing import NoReturn

import pytest
from celery.exceptions import Ignore, Reject, Retry
from hypothesis import given
from hypothesis import strategies as st

from tasks.base import given_back_if_unpublished, retry_delay
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


@pytest.mark.parametrize("failure", [Reject(OSError("no connection"), requeue=False), OSError("no connection")])
def test_a_message_whose_successor_cannot_be_published_goes_back(failure: Exception) -> None:
    """Celery's `retry` rejects it for good, its `replace` lets the task fail."""
    with pytest.raises(Reject) as raised, given_back_if_unpublished():
        raise failure

    assert raised.value.requeue


@pytest.mark.parametrize("ending", [Ignore(), Retry()])
def test_a_message_whose_successor_is_published_has_done_its_duty(ending: Exception) -> None:
    """That is how Celery ends a task which is retried or replaced."""
    with pytest.raises(type(ending)), given_back_if_unpublished():
        raise ending


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
