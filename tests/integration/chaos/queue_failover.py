# SPDX-License-Identifier: Apache-2.0
"""A Redis with a replica and a Sentinel, and an address that follows the Sentinel's word, as load balancers do."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import redis

from tests.integration.chaos.queue_finding import Finding, out_of
from tests.integration.chaos.queue_fleet import PATIENCE_SECONDS, Publisher, Site
from tests.support.ports import free_port, wait_until
from tests.support.proxy import Proxy, proxy_to
from tests.support.redis_server import RedisServer, redis_server

_MASTER = "queue"
_DOWN_AFTER_MS = 1000
_FAILOVER_SECONDS = 60.0


def failover(site: Site) -> Iterator[Finding]:
    """Kill the master amid work, once its replica has all that was published; the replica takes over."""
    with _replica_of(site) as replica, _sentinel(site) as sentinel, proxy_to(site.server.port) as proxy:
        site.far(proxy.port)
        with closing(Publisher(f"redis://127.0.0.1:{proxy.port}/0", site.ledger)) as publisher:
            tasks = [publisher.send(seconds=0.3) for _ in range(20)]
            site.begun(tasks[4])
            with site.server.client() as master:
                assert master.wait(1, 5000) == 1, "the replica is behind"
            site.server.kill()
            killed_at = time.monotonic()
            _follow(sentinel, proxy, replica)
            promoted_at = time.monotonic()
            tasks.append(publisher.send())
            site.is_done(tasks[-1], seconds=2 * PATIENCE_SECONDS)
            done_at = time.monotonic()
            site.until(lambda: site.ledger.done.issuperset(tasks))
    lost = len(set(tasks) - site.ledger.done)
    yield Finding(what="master killed, Sentinel promotes: lost", seen=out_of(lost, len(tasks)), is_good=not lost)
    seen = f"{promoted_at - killed_at:.1f} s + {done_at - promoted_at:.1f} s"
    is_good = done_at - promoted_at < PATIENCE_SECONDS
    yield Finding(what="… promoted after, and then the next task is done after", seen=seen, is_good=is_good)


@contextmanager
def _replica_of(site: Site) -> Iterator[RedisServer]:
    directory = site.directory / "replica"
    directory.mkdir()
    with redis_server(directory, appendonly=True) as replica, replica.client() as client:
        client.replicaof("127.0.0.1", site.server.port)
        wait_until(lambda: client.info("replication")["master_link_status"] == "up", "replication")
        yield replica


@contextmanager
def _sentinel(site: Site) -> Iterator[redis.Redis]:
    """Run one that decides alone."""
    port, path = free_port(), site.directory / "sentinel.conf"
    path.write_text(
        f"bind 127.0.0.1\nport {port}\n"
        f"sentinel monitor {_MASTER} 127.0.0.1 {site.server.port} 1\n"
        f"sentinel down-after-milliseconds {_MASTER} {_DOWN_AFTER_MS}\n"
        f"sentinel failover-timeout {_MASTER} 5000\n",
        encoding="ascii",
    )
    process = subprocess.Popen(["redis-server", path, "--sentinel"], stdout=subprocess.DEVNULL, cwd=site.directory)
    try:
        with redis.Redis(host="127.0.0.1", port=port, decode_responses=True, socket_timeout=10) as client:
            wait_until(lambda: _knows_replica(client), "discovery of the replica", seconds=30)
            yield client
    finally:
        process.kill()
        process.wait(timeout=20)


def _knows_replica(sentinel: redis.Redis) -> bool:
    try:
        return int(sentinel.sentinel_master(_MASTER)["num-slaves"]) == 1
    except redis.RedisError:
        return False


def _follow(sentinel: redis.Redis, proxy: Proxy, replica: RedisServer) -> None:
    """Lead connections to the replica once the Sentinel says that it is the master."""
    proxy.refuses = True

    def is_promoted() -> bool:
        return int(sentinel.sentinel_get_master_addr_by_name(_MASTER)[1]) == replica.port

    wait_until(is_promoted, "failover", seconds=_FAILOVER_SECONDS)
    proxy.upstream_port = replica.port
    proxy.refuses = False
