# SPDX-License-Identifier: Apache-2.0
"""The demonstration's own processes and directory. `tests/integration/test_demo.py` runs all of it."""

import socket
from pathlib import Path

import pytest

from worker.cli.demo_cluster import DemoCluster, make_directory
from worker.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let temporary directories be made in one of the test's own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_the_directory_is_this_users_own(temporary: Path) -> None:
    """Images hold setuid files."""
    directory = make_directory()

    assert directory.parent == temporary
    assert directory.stat().st_mode & 0o777 == 0o700


def test_the_node_keeps_the_users_settings_but_has_places_and_names_of_its_own(temporary: Path) -> None:
    """An insecure registry stays one; the user's cluster is not touched."""
    own = DemoCluster(Settings(insecure_registries="registry.local", cluster="production", redis_url="redis://prod/0"))
    own.start_server()
    try:
        assert own.settings.insecure_registries == ("registry.local",)
        assert (own.settings.cluster, own.settings.node) == ("demo", "demo")
        assert own.settings.work_dir.parent == own.settings.store_dir.parent == own.directory
        assert own.settings.redis_url.startswith("redis://:")
        assert own.settings.redis_url.rpartition("@")[2].startswith("127.0.0.1:")
        assert own.cluster.client.ping()
    finally:
        own.cluster.client.close()
        own.stop(keep=False)

    assert list(temporary.iterdir()) == []


@pytest.mark.redis
def test_a_port_of_metrics_that_another_worker_has_is_left_to_it(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable stands in the shell in which somebody wants to see a demonstration."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("PROVISIONER_METRICS_PORT", str(taken.getsockname()[1]))
        own = DemoCluster(load_settings())
        try:
            own.start_server()
            own.start_worker()
            own.cluster.client.close()
        finally:
            own.stop(keep=False)

    assert list(temporary.iterdir()) == []


def test_stopping_what_never_started_removes_the_directory(temporary: Path) -> None:
    """An interrupt may come first."""
    own = DemoCluster(Settings())

    own.stop(keep=False)
    own.stop(keep=False)

    assert list(temporary.iterdir()) == []
