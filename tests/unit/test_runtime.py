# SPDX-License-Identifier: Apache-2.0
"""The composition root refuses what cannot work."""

import os
import socket
import time
from pathlib import Path

import pytest

from tests.support.provisioners import make_settings
from worker.errors import BackendUnsupported, InvalidArgument, StateUnavailable
from worker.runtime import make_provisioner, make_registry, process_provisioner

pytestmark = pytest.mark.redis


@pytest.mark.root
def test_root_does_not_use_a_store_that_somebody_else_made(tmp_path: Path, redis_url: str) -> None:
    """Its layers have lost their owners."""
    settings = make_settings(tmp_path, redis_url)
    make_provisioner(settings)
    os.chown(settings.store_dir, 1000, 1000)

    with pytest.raises(InvalidArgument, match="1000"):
        make_provisioner(settings)


def test_a_backend_that_is_not_there_is_named(tmp_path: Path, redis_url: str) -> None:
    """No other is taken in its place."""
    with pytest.raises(BackendUnsupported, match="zfs"):
        make_provisioner(make_settings(tmp_path, redis_url, backend="zfs"))


def test_a_process_has_one_provisioner_and_its_child_another(tmp_path: Path, redis_url: str) -> None:
    """Sockets and locks are not shared over a fork."""
    settings = make_settings(tmp_path, redis_url)
    mine = process_provisioner(settings)
    assert process_provisioner(settings) is mine

    child = os.fork()
    if child == 0:
        os._exit(0 if process_provisioner(settings) is not mine else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_loop_waits_for_a_silent_redis_no_longer_than_for_its_next_beat(tmp_path: Path) -> None:
    """Whatever a task may wait."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        settings = make_settings(tmp_path, url, redis_timeout_seconds=30.0, visibility_timeout_seconds=5.0)
        began_at = time.monotonic()

        with pytest.raises(StateUnavailable):
            make_registry(settings).containers.now_ms()

    assert time.monotonic() - began_at < 1.5
