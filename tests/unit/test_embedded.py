# SPDX-License-Identifier: Apache-2.0
"""The embedded Valkey: its own, durable, reachable by its owner only, and gone when stopped."""

import os
import signal
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.ports import free_port, is_listening, wait_until
from worker.embedded import EmbeddedServer, embedded_server, is_free, new_password
from worker.errors import ServerFailed


def connect(server: EmbeddedServer) -> redis.Redis:
    """Return a client that does not try again."""
    return redis.Redis.from_url(server.url, decode_responses=True)


def test_it_answers_at_its_url_with_persistence_and_without_eviction(tmp_path: Path) -> None:
    """Celery's tasks must survive a restart, and must not be evicted."""
    with embedded_server(tmp_path / "redis") as server, connect(server) as client:
        options = client.config_get("appendonly", "appendfsync", "maxmemory-policy", "bind", "save")

        assert options == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
            "save": "",
        }


def test_a_stop_loses_nothing(tmp_path: Path) -> None:
    """Started again in the same directory, it has what it was told a moment before it was stopped."""
    with embedded_server(tmp_path / "redis") as server, connect(server) as client:
        client.rpush("provision", "task")

    with embedded_server(tmp_path / "redis") as server, connect(server) as client:
        assert client.lrange("provision", 0, -1) == ["task"]


def test_after_a_kill_it_starts_again_with_its_data(tmp_path: Path) -> None:
    """What was written to the append-only file is there; the directory is free again."""
    with embedded_server(tmp_path / "redis") as server, connect(server) as client:
        client.config_set("appendfsync", "always")
        client.rpush("provision", "task")
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.is_running, "the server's end")

    with embedded_server(tmp_path / "redis") as server, connect(server) as client:
        assert client.lrange("provision", 0, -1) == ["task"]


def test_when_stopped_neither_process_nor_port_is_left(tmp_path: Path) -> None:
    """Stopping twice is no error either."""
    server = EmbeddedServer(tmp_path / "redis")
    server.start()
    pid, port = server.pid, server.port
    assert port is not None

    server.stop()
    server.stop()

    assert not server.is_running
    assert not Path(f"/proc/{pid}").exists()
    assert not is_listening(port)
    assert is_free(port)


def test_a_password_is_asked_for_and_on_no_command_line(tmp_path: Path) -> None:
    """Command lines are visible to every user of the host, and so is the port."""
    password = new_password()
    with embedded_server(tmp_path / "redis", password=password) as server:
        with connect(server) as client:
            assert client.ping()
        patience = Retry(NoBackoff(), 0)
        with redis.Redis(port=server.port, retry=patience) as client, pytest.raises(redis.AuthenticationError):
            client.ping()

        assert password.encode() not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert all(password.encode() not in path.read_bytes() for path in server.directory.rglob("*") if path.is_file())
        assert server.directory.stat().st_mode & 0o077 == 0


def test_a_second_server_in_the_directory_is_refused(tmp_path: Path) -> None:
    """Two would ruin each other's append-only file; the first goes on."""
    with embedded_server(tmp_path / "redis") as server:
        with pytest.raises(ServerFailed, match="another server uses it"):
            EmbeddedServer(tmp_path / "redis").start()

        with connect(server) as client:
            assert client.ping()


def test_a_port_that_is_taken_is_named_in_the_error(tmp_path: Path) -> None:
    """The server that has the port answers there: it must not be taken for ours."""
    with embedded_server(tmp_path / "first") as first:
        assert first.port is not None
        assert not is_free(first.port)

        with pytest.raises(ServerFailed, match=rf"127\.0\.0\.1:{first.port}: bind: Address already in use"):
            EmbeddedServer(tmp_path / "second", port=first.port).start()


def test_the_port_asked_for_is_used(tmp_path: Path) -> None:
    """A scheduler's URL stays the same over restarts."""
    port = free_port()

    with embedded_server(tmp_path / "redis", port=port) as server:
        assert server.url == f"redis://127.0.0.1:{port}/0"


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The error says where and why."""
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(ServerFailed, match=r"file/redis did not start: .*Not a directory"):
        EmbeddedServer(tmp_path / "file" / "redis").start()


def test_data_that_cannot_be_read_is_an_error_and_no_process_is_left(tmp_path: Path) -> None:
    """A server that ends while it loads says why."""
    with embedded_server(tmp_path / "redis") as server, connect(server) as client:
        client.set("key", "value")
    (base,) = (tmp_path / "redis" / "appendonlydir").glob("*.base.*")
    base.write_bytes(b"no append-only file")

    broken = EmbeddedServer(tmp_path / "redis")
    with pytest.raises(ServerFailed, match="it ended with 1"):
        broken.start()

    assert not broken.is_running
