# SPDX-License-Identifier: Apache-2.0
"""The queue beside stock Celery's: `python -m tests.benchmarks.queue`.

Two workers of two processes each with the same configuration (late acknowledgement, one message at a time, events,
results in Redis), one on our transport and one on kombu's, each with a redis-server of its own on loopback. They take
turns: a scheduler that waits for one no-op after the other, then a thousand no-ops that are all there at once.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from rich.table import Table

from tests.benchmarks.measuring import scratch
from tests.benchmarks.measuring.figures import conditions, median, seconds_of, wide_console
from tests.benchmarks.measuring.processes import usage_of
from tests.benchmarks.measuring.tally import ANSWERED, TALLIED, TALLY_VARIABLE
from tests.support.ports import wait_until
from tests.support.redis_server import RedisServer, redis_server
from tests.support.schedulers import Scheduler
from tests.support.workers import Node

CONCURRENCY = 2
_QUEUE = "provision"
_SHELF = "shelf"
_WAIT_SECONDS = 300.0
_APPS: Mapping[str, tuple[str, ...]] = {
    "provisioner": ("worker", "--include", "tests.benchmarks.measuring.tally"),
    "stock Celery": ("tests.benchmarks.peers.stock_queue",),
}


@dataclass(kw_only=True)
class Samples:
    """One worker's rounds.

    Attributes:
        round_trips: Seconds from `send_task` to the answer, one after the other.
        per_second: Tasks done per second, of many that wait.
        worker_ms: CPU of all the worker's processes a task.
        server_ms: CPU of Redis a task.
        reads: What Redis read from its clients a task: a command, or several sent together.
        commands: Calls by command over all rounds of waiting tasks, those made by scripts included.
    """

    round_trips: list[float] = field(default_factory=list)
    per_second: list[float] = field(default_factory=list)
    worker_ms: list[float] = field(default_factory=list)
    server_ms: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    commands: Counter[str] = field(default_factory=Counter)


class Peer:
    """A worker, its Redis and its scheduler."""

    def __init__(self, node: Node, server: RedisServer, scheduler: Scheduler, tally_path: Path) -> None:
        self._node = node
        self._server = server
        self._scheduler = scheduler
        self._tally_path = tally_path
        self.samples = Samples()

    def wait_for_each(self, count: int) -> None:
        """Send and wait, again and again."""
        self.samples.round_trips += [seconds_of(self._call) for _ in range(count)]

    def _call(self) -> None:
        self._scheduler.app.send_task(ANSWERED, queue=_QUEUE).get(timeout=_WAIT_SECONDS)

    def drain(self, count: int) -> None:
        """Let so many tasks be there at once, and measure until the last is done."""
        for _ in range(count):
            self._scheduler.app.send_task(TALLIED, queue=_SHELF, ignore_result=True)
        self._tally_path.write_bytes(b"")
        with self._server.client() as client:
            client.config_resetstat()
            worker_before, server_before = usage_of([self._node.pid]), _cpu_seconds(client)
            seconds = seconds_of(lambda: self._drain(client, count))
            statistics: Any = client.info("everything")
            worker, server = usage_of([self._node.pid]) - worker_before, _cpu_seconds(client) - server_before
        self.samples.per_second.append(count / seconds)
        self.samples.worker_ms.append(worker.cpu_seconds / count * 1000)
        self.samples.server_ms.append(server / count * 1000)
        self.samples.reads.append(statistics["total_reads_processed"] / count)
        self.samples.commands += _calls(statistics)

    def _drain(self, client: redis.Redis, count: int) -> None:
        client.rename(_SHELF, _QUEUE)
        wait_until(lambda: self._tally_path.stat().st_size >= count, f"{count} tasks", seconds=_WAIT_SECONDS)


def _cpu_seconds(client: redis.Redis) -> float:
    cpu: Any = client.info("cpu")
    return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])


def _calls(statistics: Mapping[str, Any]) -> Counter[str]:
    commands = {name: each["calls"] for name, each in statistics.items() if name.startswith("cmdstat_")}
    return Counter({name.removeprefix("cmdstat_"): calls for name, calls in commands.items()})


@contextmanager
def _peer(name: str, directory: Path) -> Iterator[Peer]:
    (directory / "redis").mkdir(parents=True)
    tally_path = directory / "tally"
    app, *options = _APPS[name]
    with redis_server(directory / "redis", kind="redis-server") as server:
        node = Node("bench", directory / "node", redis_url=server.url, app=app, **{TALLY_VARIABLE: str(tally_path)})
        try:
            node.start("--concurrency", str(CONCURRENCY), *options)
            with closing(Scheduler(server.url)) as scheduler:
                yield Peer(node, server, scheduler, tally_path)
        finally:
            node.kill()


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    console = wide_console()
    console.print(conditions())
    with scratch.scratch("queue") as directory, ExitStack() as stack:
        peers = {name: stack.enter_context(_peer(name, directory / f"{number}")) for number, name in enumerate(_APPS)}
        _take_turns(list(peers.values()), arguments, say=console.print)
        samples = {name: peer.samples for name, peer in peers.items()}
    console.print(_costs_table(samples, arguments))
    console.print(_commands_table(samples, arguments.rounds * arguments.waiting))
    console.print(conditions())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=200, help="tasks waited for, a round")
    parser.add_argument("--waiting", type=int, default=1000, help="tasks that are there at once, a round")
    return parser.parse_args()


def _take_turns(peers: Sequence[Peer], arguments: argparse.Namespace, *, say: Callable[[str], None]) -> None:
    for peer in peers:
        peer.wait_for_each(10 * CONCURRENCY)
        peer.samples.round_trips.clear()
    for number in range(arguments.rounds):
        say(f"round {number + 1} of {arguments.rounds}")
        for peer in peers if number % 2 else reversed(peers):
            peer.wait_for_each(arguments.count)
            peer.drain(arguments.waiting)


def _costs_table(samples: Mapping[str, Samples], arguments: argparse.Namespace) -> Table:
    title = f"a no-op, medians of {arguments.rounds} rounds (least to most)"
    table = Table("", *samples, "ours / theirs", title=title)
    rows: Mapping[str, Callable[[Samples], Sequence[float]]] = {
        "sent, run, answered: p50 ms": lambda each: [seconds * 1000 for seconds in each.round_trips],
        f"{arguments.waiting} waiting: tasks/s": lambda each: each.per_second,
        "CPU of the worker, ms a task": lambda each: each.worker_ms,
        "CPU of Redis, ms a task": lambda each: each.server_ms,
        "round trips to Redis a task": lambda each: each.reads,
    }
    for name, figures_of in rows.items():
        ours, theirs = (median(figures_of(each)) for each in samples.values())
        cells = (_spread(figures_of(each)) for each in samples.values())
        table.add_row(name, *cells, f"{ours / theirs:.2f}")
    return table


def _spread(figures: Sequence[float]) -> str:
    digits = 0 if min(figures) > 50 else 2
    return f"{median(figures):,.{digits}f} ({min(figures):,.{digits}f} to {max(figures):,.{digits}f})"


def _commands_table(samples: Mapping[str, Samples], tasks: int) -> Table:
    table = Table("", *samples, title="Redis commands a waiting task, those made by scripts included")
    names = sum((each.commands for each in samples.values()), Counter[str]())
    for name, _ in names.most_common():
        figures = [each.commands[name] / tasks for each in samples.values()]
        if max(figures) >= 0.05:
            table.add_row(name, *(f"{figure:.2f}" for figure in figures))
    table.add_section()
    table.add_row("all", *(f"{each.commands.total() / tasks:.2f}" for each in samples.values()))
    return table


if __name__ == "__main__":
    scratch.run(main)
