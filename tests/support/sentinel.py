# SPDX-License-Identifier: Apache-2.0
"""A Redis with a replica and three sentinels that watch over it, all on loopback."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.support.ports import free_port, wait_until
from tests.support.redis_server import Kind, RedisServer, redis_server, server_program

MASTER = "mymaster"
# A machine that tests share may be slow to start five servers and to elect one.
FAILOVER_SECONDS = 120.0
_SENTINELS = 3


class SentinelCluster:
    """Two servers, one the master and one its replica, and who decides which is which.

    Attributes:
        url: As kombu and Celery spell it.
        servers: By port.
        sentinels: Those that live, by port, in the order of the URL.
    """

    def __init__(
        self, servers: tuple[RedisServer, RedisServer], sentinels: Mapping[int, subprocess.Popen[bytes]]
    ) -> None:
        self.servers = {server.port: server for server in servers}
        self.sentinels = dict(sentinels)
        self.url = ";".join(f"sentinel://127.0.0.1:{port}/0" for port in sentinels)

    @property
    def master(self) -> RedisServer:
        """The server that a majority of the sentinels take for the master."""
        ports = [self._view(port)["port"] for port in self.sentinels]
        return self.servers[max(ports, key=ports.count)]

    def _view(self, port: int) -> Mapping[str, Any]:
        with redis.Redis(port=port, socket_timeout=10) as client:
            view: Mapping[str, Any] = client.sentinel_master(MASTER)
            return view

    def wait_until_ready(self) -> None:
        """Return once the sentinels know each other and the replica, so that a failover can begin."""
        wait_until(self._is_ready, "all sentinels to see everybody", seconds=FAILOVER_SECONDS, poll_seconds=0.1)
        wait_until(self._is_replica_online, "the replica", seconds=FAILOVER_SECONDS, poll_seconds=0.1)

    def _is_ready(self) -> bool:
        views = [self._view(port) for port in self.sentinels]
        return all(view["num-other-sentinels"] == _SENTINELS - 1 and view["num-slaves"] == 1 for view in views)

    def _is_replica_online(self) -> bool:
        with self.master.client() as client:
            return any("online" in str(value) for key, value in client.info("replication").items() if key == "slave0")

    def replicate(self) -> None:
        """Return once the replica has all that the master has now: replication is asynchronous."""
        master = self.master
        (replica,) = (server for server in self.servers.values() if server is not master)
        with master.client() as source, replica.client() as target:
            offset = source.info("replication")["master_repl_offset"]
            wait_until(lambda: target.info("replication")["slave_repl_offset"] >= offset, "replication", seconds=60)

    def fail_over(self) -> RedisServer:
        """Kill the master and the first sentinel, as their host would; return the new one once the others agree."""
        lost = self.master
        _kill(self.sentinels.pop(next(iter(self.sentinels))))
        lost.kill()
        (heir,) = (server for server in self.servers.values() if server is not lost)

        def has_taken_over() -> bool:
            with heir.client() as client:
                is_master = client.info("replication")["role"] == "master"
            return is_master and all(self._view(port)["port"] == heir.port for port in self.sentinels)

        wait_until(has_taken_over, "failover", seconds=FAILOVER_SECONDS, poll_seconds=0.1)
        return heir


@contextmanager
def sentinel_cluster(directory: Path, *, kind: Kind) -> Iterator[SentinelCluster]:
    """Run all five servers for the context's time; `directory` exists and is its own."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(_server(directory / name, kind)) for name in ("first", "second"))
        with second.client() as client:
            client.replicaof("127.0.0.1", str(first.port))
        ports = tuple(free_port() for _ in range(_SENTINELS))
        sentinels = {
            port: stack.enter_context(_sentinel(directory / f"sentinel-{port}", kind, port, master_port=first.port))
            for port in ports
        }
        cluster = SentinelCluster((first, second), sentinels)
        cluster.wait_until_ready()
        yield cluster


@contextmanager
def _server(directory: Path, kind: Kind) -> Iterator[RedisServer]:
    directory.mkdir()
    with redis_server(directory, kind=kind, appendonly=True) as server, server.client() as client:
        client.config_set("repl-diskless-sync-delay", 0)
        yield server


@contextmanager
def _sentinel(directory: Path, kind: Kind, port: int, *, master_port: int) -> Iterator[subprocess.Popen[bytes]]:
    directory.mkdir()
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"dir {directory}",
        f"sentinel monitor {MASTER} 127.0.0.1 {master_port} 2",
        f"sentinel down-after-milliseconds {MASTER} 1000",
        f"sentinel failover-timeout {MASTER} 3000",
    ]
    config_path, log_path = directory / "sentinel.conf", directory / "sentinel.log"
    config_path.write_text("\n".join(lines) + "\n")
    with log_path.open("ab") as log:
        command = [server_program(kind), str(config_path), "--sentinel"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(port), f"start of the sentinel on {port}", seconds=60)
        yield process
    finally:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(timeout=20)


def _answers(port: int) -> bool:
    with redis.Redis(port=port, socket_timeout=10) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False
