# SPDX-License-Identifier: Apache-2.0
"""The wire contract and Celery's options, literally: Celery accepts a misspelt option without a word."""

import importlib.util
from pathlib import Path

import pytest
from celery.app.defaults import SETTING_KEYS

from worker.celery import TASK_MODULES, app, make_config
from worker.requests import PruneRequest
from worker.settings import Settings
from worker.transport.channel import Channel

_OPTIONS = {
    "accept_content",
    "beat_schedule",
    "broker_channel_error_retry",
    "broker_connection_retry_on_startup",
    "broker_transport_options",
    "broker_url",
    "event_serializer",
    "include",
    "redis_backend_health_check_interval",
    "redis_socket_connect_timeout",
    "redis_socket_keepalive",
    "redis_socket_timeout",
    "result_backend",
    "result_backend_always_retry",
    "result_backend_max_sleep_between_retries_ms",
    "result_backend_transport_options",
    "result_expires",
    "result_extended",
    "result_serializer",
    "task_acks_late",
    "task_default_queue",
    "task_queues",
    "task_reject_on_worker_lost",
    "task_send_sent_event",
    "task_serializer",
    "task_track_started",
    "worker_consumer",
    "worker_enable_prefetch_count_reduction",
    "worker_prefetch_multiplier",
    "worker_redirect_stdouts",
    "worker_send_task_events",
}


@pytest.fixture
def config(tmp_path: Path) -> dict[str, object]:
    """The options of a node."""
    return make_config(Settings(node="n7", work_dir=tmp_path, store_dir=tmp_path, visibility_timeout_seconds=100))


def test_every_option_is_one_that_celery_knows(config: dict[str, object]) -> None:
    """Named here and in Celery's own table."""
    assert set(config) == _OPTIONS
    assert set(config) - {"redis_backend_health_check_interval"} <= set(SETTING_KEYS), (
        "read by the backend without a default"
    )


def test_transport_options_are_ones_that_kombu_knows(config: dict[str, object]) -> None:
    """Named here and in the transport."""
    options = config["broker_transport_options"]

    assert isinstance(options, dict)
    assert options["visibility_timeout"] == 100
    assert options["unacked_restore_interval"] == 20
    assert set(options) <= set(Channel.from_transport_options)


def test_a_node_serves_the_common_queue_and_its_own(config: dict[str, object]) -> None:
    """`celery --app worker worker` needs no -Q."""
    queues = config["task_queues"]

    assert [queue.name for queue in queues] == ["provision", "node.n7"]  # type: ignore[attr-defined]


def test_messages_are_json_and_acknowledged_when_done(config: dict[str, object]) -> None:
    """No pickle, no early acknowledgement, nothing fetched ahead."""
    assert config["accept_content"] == ["json"]
    assert (config["task_acks_late"], config["worker_prefetch_multiplier"]) == (True, 1)


def test_every_module_that_a_worker_imports_is_there() -> None:
    """One that is missing ends every worker at its start."""
    assert [name for name in TASK_MODULES if importlib.util.find_spec(name) is None] == []


def test_the_tasks_have_the_contracts_names() -> None:
    """Six public ones, the one that joins answers, and the one that undoes what was revoked."""
    app.loader.import_default_modules()

    ours = {name for name in app.tasks if not name.startswith("celery.")}

    assert ours == {
        "provisioner.provision",
        "provisioner.destroy",
        "provisioner.prune",
        "provisioner.pull",
        "provisioner.recover",
        "provisioner.verify",
        "provisioner.gather",
        "provisioner.take_back",
        "provisioner.take_up",
    }


def test_beat_prunes_only_when_told_to(tmp_path: Path) -> None:
    """An operator decides."""
    quiet = make_config(Settings(work_dir=tmp_path, store_dir=tmp_path))
    busy = make_config(
        Settings(work_dir=tmp_path, store_dir=tmp_path, prune_interval_seconds=60, prune_free_percent=10)
    )

    assert quiet["beat_schedule"] == {}
    keywords = {"excluded_images": [], "unused_seconds": 0.0, "free_percent": 10}
    assert busy["beat_schedule"] == {"prune": {"task": "provisioner.prune", "schedule": 60, "kwargs": keywords}}
    PruneRequest.parse(keywords)
