# SPDX-License-Identifier: Apache-2.0
"""The cluster lock beside other locks over Redis: `python -m tests.benchmarks.lock`.

One redis-server on a Unix socket, no persistence. What a lock costs when nobody is in the way; how it passes between a
writer and 1, 10 and 100 readers; how long a writer waits among readers that never all pause; what the server works per
script with up to 10,000 readers; and what a warm provision asks of Redis altogether.

The readers of a hand-over are threads of one process: a hundred of them wait for its
interpreter too, whatever the lock.
"""

import argparse
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.table import Table

from tests.benchmarks.measuring import scratch
from tests.benchmarks.measuring.crowds import HOLD_SECONDS, READER_PROCESSES, READERS_EACH, hand_over, saturate
from tests.benchmarks.measuring.figures import conditions, median, percentile, wide_console
from tests.benchmarks.peers.locks import LEASE_SECONDS, NOT_INSTALLABLE, PEERS, Handle, LockPeer
from tests.support.provisioners import provisioner, small_layout
from tests.support.redis_server import RedisServer, redis_server
from worker.lock import LockMode
from worker.lock.scripts import LockScripts
from worker.provisioner import Provisioner

Opener = Callable[[redis.Redis, str], Handle]

PROCESSES = 4
CROWDS = (1, 10, 100)
LIVE_READERS = (1, 100, 1000, 10_000)
PROVISIONS = 50
_CALLS = 500
_BATCHES = 9
_BATCH_CALLS = 50


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    console = wide_console()
    console.print(conditions())
    with scratch.scratch("lock") as directory, redis_server(directory, kind="redis-server") as server:
        peers = list(_present(console))
        console.print(uncontended(server, peers, arguments))
        _empty(server)
        console.print(passing(server, peers, arguments))
        console.print(saturated(server, peers, arguments))
        _empty(server)
        console.print(live_readers(_connect(server)))
        console.print(provisioning(directory, server))
    console.print(conditions())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=2000, help="uncontended pairs of each lock")
    parser.add_argument("--rounds", type=int, default=20, help="hand-overs of each lock and crowd")
    parser.add_argument("--seconds", type=float, default=10.0, help="of saturation for each lock")
    return parser.parse_args()


def _present(console: Console) -> Iterator[LockPeer]:
    for name, reason in NOT_INSTALLABLE.items():
        console.print(f"skipped: {name}: {reason}")
    for peer in PEERS:
        if (lack := peer.missing()) is None:
            yield peer
        else:
            console.print(f"skipped: {peer.name}: {lack}", markup=False)


def _connect(server: RedisServer) -> redis.Redis:
    # Locks that block in Redis must not be woken by a timeout of the client's.
    return redis.Redis(unix_socket_path=str(server.socket_path), socket_timeout=None, max_connections=1000)


def _empty(server: RedisServer) -> None:
    with server.client() as client:
        client.flushall()


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.3f}"


# Nobody in the way.


class _Pings:
    """The least that a lock could cost: a round trip to acquire, one to release."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def acquire(self) -> None:
        self._client.ping()

    def release(self) -> None:
        self._client.ping()


def uncontended(server: RedisServer, peers: Sequence[LockPeer], arguments: argparse.Namespace) -> Table:
    """Time pairs of acquire and release, all kinds taking turns; then count pairs of several processes at once."""
    client = _connect(server)
    kinds = {f"{peer.name}, {mode}": _opener(peer, mode) for peer in peers for mode in peer.modes}
    kinds = {"two round trips (PING)": _ping_opener, **kinds}
    handles = {name: open_handle(client, f"{{bench}}:{name}") for name, open_handle in kinds.items()}
    samples = _pair_seconds(handles, arguments.count)
    title = f"acquire + release, nobody in the way, {arguments.count} each"
    table = Table("", "p50 ms", "p99 ms", "round trips", f"pairs/s, {PROCESSES} processes, a name each", title=title)
    for name, seconds in samples.items():
        trips = _round_trips(client, handles[name])
        rate = _pairs_per_second(server, name, kinds[name])
        table.add_row(name, _ms(median(seconds)), _ms(percentile(seconds, 0.99)), f"{trips:.1f}", f"{rate:,.0f}")
    return table


def _opener(peer: LockPeer, mode: LockMode) -> Opener:
    return lambda client, name: peer.open(client, name, mode)


def _ping_opener(client: redis.Redis, _name: str) -> Handle:
    return _Pings(client)


def _pair_seconds(handles: Mapping[str, Handle], count: int) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in handles}
    for _ in range(count):
        for name, handle in handles.items():
            started = time.perf_counter()
            handle.acquire()
            handle.release()
            samples[name].append(time.perf_counter() - started)
    return samples


def _round_trips(client: redis.Redis, handle: Handle) -> float:
    """Count what the server read from its clients: a command, or several sent together."""
    before = _reads(client)
    for _ in range(_CALLS):
        handle.acquire()
        handle.release()
    return (_reads(client) - before - 1) / _CALLS


def _reads(client: redis.Redis) -> int:
    return int(client.info("stats")["total_reads_processed"])


def _pairs_per_second(server: RedisServer, name: str, open_handle: Opener, *, seconds: float = 2.0) -> float:
    fork = multiprocessing.get_context("fork")
    counts = fork.RawArray("L", PROCESSES)

    def go_on(number: int) -> None:
        handle = open_handle(_connect(server), f"{{bench}}:{name}:{number}")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            handle.acquire()
            handle.release()
            counts[number] += 1

    processes = [fork.Process(target=go_on, args=(number,)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return float(sum(counts) / seconds)


# Somebody in the way.


def passing(server: RedisServer, peers: Sequence[LockPeer], arguments: argparse.Namespace) -> Table:
    """Time how the lock passes from readers to a waiting writer, and from it to as many waiting readers."""
    title = f"hand-over, p50 (worst) ms of {arguments.rounds}"
    table = Table("", "readers", "to the waiting writer", "to the first waiting reader", "to the last", title=title)
    for readers in CROWDS:
        for peer in peers:
            if peer.is_read_write:
                rounds = hand_over(peer, lambda: _connect(server), readers=readers, rounds=arguments.rounds)
                columns = zip(*((each.to_writer, each.to_first, each.to_last) for each in rounds), strict=True)
                table.add_row(peer.name, str(readers), *(f"{_ms(median(each))} ({_ms(max(each))})" for each in columns))
                _empty(server)
    return table


def saturated(server: RedisServer, peers: Sequence[LockPeer], arguments: argparse.Namespace) -> Table:
    """Time the waits of a writer among readers that never all pause."""
    readers = READER_PROCESSES * READERS_EACH
    title = (
        f"a writer among {readers} readers that hold for {_ms(HOLD_SECONDS)} ms without a pause, {arguments.seconds} s"
    )
    table = Table("", "grants", "p50 ms", "p99 ms", "worst ms", "in vain at the end, ms", "reads/s", title=title)
    for peer in peers:
        if peer.is_read_write:
            result = saturate(peer, lambda: _connect(server), seconds=arguments.seconds)
            waits = result.waits
            figures = [median(waits), percentile(waits, 0.99), max(waits)] if waits else []
            cells = [*map(_ms, figures), "-", "-", "-"][:3]
            table.add_row(peer.name, str(len(waits)), *cells, _ms(result.pending), f"{result.reads_per_second:,.0f}")
            _empty(server)
    return table


# What the server works.


def live_readers(client: redis.Redis) -> Table:
    """Show the server's time per script while so many readers hold the lock.

    Each is the fastest of some batches: the server's clock runs on while other programs have its processor.
    """
    table = Table(
        "", *(f"{live:,}" for live in LIVE_READERS), title="ours: server's µs a script by live readers, fastest batch"
    )
    columns = [_script_costs(client, live) for live in LIVE_READERS]
    for name in columns[0]:
        table.add_row(name, *(f"{column[name]:,.1f}" for column in columns))
    return table


def _script_costs(client: redis.Redis, live: int) -> dict[str, float]:
    scripts = LockScripts(client, f"{{bench}}:live:{live}", lease_seconds=3600)
    owners = [f"host:1:{number:016x}" for number in range(live)]
    for owner in owners:
        scripts.acquire(owner, LockMode.SHARED, floor=0)

    def spent(act: Callable[[int], object], calls: int = _BATCH_CALLS) -> float:
        batches = (range(start, start + calls) for start in range(0, calls * _BATCHES, calls))
        return min(_server_us(client, act, batch) for batch in batches)

    shared = [(LockMode.SHARED, owner) for owner in owners]
    return {
        "acquire shared": spent(lambda number: scripts.acquire(f"shared:{number}", LockMode.SHARED, floor=0)),
        "release shared": spent(lambda number: scripts.release(f"shared:{number}")),
        "ask for exclusive, in vain": spent(
            lambda number: scripts.acquire(f"writer:{number}", LockMode.EXCLUSIVE, floor=0)
        ),
        "withdraw it": spent(lambda number: scripts.release(f"writer:{number}")),
        "renew one": spent(lambda _: scripts.renew(shared[:1])),
        "renew up to a hundred": spent(lambda _: scripts.renew(shared[:100])),
        "renew all, in one script": spent(lambda _: scripts.renew(shared), 1),
        "view": spent(lambda _: scripts.view(), 1),
        "acquire shared, all others having just lapsed": _lapsed(client, scripts, owners),
    }


def _lapsed(client: redis.Redis, scripts: LockScripts, owners: Sequence[str]) -> float:
    """Let all leases lapse at once, as when their hosts died together; the next script forgets them."""

    def spent(number: int) -> float:
        client.zadd(f"{scripts.name}:held:shared", dict.fromkeys(owners, 1))
        client.hset(f"{scripts.name}:since", mapping=dict.fromkeys(owners, 1))
        return _server_us(client, lambda _: scripts.acquire(f"next:{number}", LockMode.SHARED, floor=0), [0])

    return min(spent(number) for number in range(_BATCHES))


def _server_us(client: redis.Redis, act: Callable[[int], object], calls: Sequence[int]) -> float:
    client.config_resetstat()
    for number in calls:
        act(number)
    spent: Any = client.info("commandstats")["cmdstat_evalsha"]
    return float(spent["usec_per_call"])


def provisioning(directory: Path, server: RedisServer) -> Table:
    """Count round trips and commands of a node in this process, whose image is there, without the queue's."""
    table = Table("", "round trips", "scripts", "commands, those in scripts included", title="ours: Redis a task, warm")
    image = small_layout(directory / "image")
    with provisioner(directory, server.url, lease_seconds=LEASE_SECONDS) as node, server.client() as client:
        node.provision({"container_id": "beside", "image": image})
        # The server is sent each script's text once.
        node.provision({"container_id": "first", "image": image})
        node.destroy({"container_id": "first"})
        for name, act in _tasks(node, image).items():
            trips, commands = _counted(client, act)
            table.add_row(
                name, *(f"{each / PROVISIONS:.1f}" for each in (trips, commands["evalsha"], commands.total()))
            )
    return table


def _tasks(node: Provisioner, image: str) -> dict[str, Callable[[int], object]]:
    return {
        "provision": lambda number: node.provision({"container_id": f"c{number}", "image": image}),
        "provision again, the same": lambda number: node.provision({"container_id": f"c{number}", "image": image}),
        "destroy": lambda number: node.destroy({"container_id": f"c{number}"}),
    }


def _counted(client: redis.Redis, act: Callable[[int], object]) -> tuple[int, Counter[str]]:
    client.config_resetstat()
    for number in range(PROVISIONS):
        act(number)
    statistics: Any = client.info("everything")
    commands = {name: each["calls"] for name, each in statistics.items() if name.startswith("cmdstat_")}
    counter = Counter({name.removeprefix("cmdstat_"): calls for name, calls in commands.items()})
    # What reset the statistics is counted after it did, and the question is read before it is answered.
    del counter["config|resetstat"]
    return statistics["total_reads_processed"] - 1, counter


if __name__ == "__main__":
    scratch.run(main)
