# SPDX-License-Identifier: Apache-2.0
"""Two kinds of worker to compare, the scheduler that publishes to them, and the harm that is done to them."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from celery import Celery
from kombu.exceptions import OperationalError
from redis import RedisError

from tests.integration.chaos.queue_ledger import Execution, Fault, Ledger, Sent
from tests.integration.chaos.queue_names import LEDGER_VARIABLE, QUEUE, WORK, task_id
from tests.support.redis_server import RedisServer, redis_server
from tests.support.workers import Node

VISIBILITY_SECONDS = 5
LONG_SECONDS = VISIBILITY_SECONDS + 7.0
"""Beyond the visibility timeout, within which stock Celery wants every task to end."""

PATIENCE_SECONDS = 3.0 * VISIBILITY_SECONDS
"""How long something is waited for that has to come."""

LEASE_SECONDS = 3.0
"""Of the cluster lock, which grants nothing exclusive for so long after its Redis came back."""

CONCURRENCY = 2
_SHUTDOWN_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A kind of worker.

    Attributes:
        name: As tables show it.
        app: Which Celery app its workers serve.
        options: Of `celery worker`.
    """

    name: str
    app: str
    options: tuple[str, ...] = ()


OURS = Contestant(name="provisioner", app="worker", options=("--include", "tests.integration.chaos.queue_tasks"))
STOCK = Contestant(name="stock Celery", app="tests.integration.chaos.queue_stock")
CONTESTANTS = (OURS, STOCK)


class Member(Node):
    """A worker of the fleet; what is done to it is written down before it is done.

    Attributes:
        is_paused: Whether it stands still.
        gives_up_at: Until when it has time to end, having been told to; else None.
    """

    def __init__(self, name: str, directory: Path, *, contestant: Contestant, redis_url: str, ledger: Ledger) -> None:
        env = {
            LEDGER_VARIABLE: str(ledger.path),
            "PROVISIONER_VISIBILITY_TIMEOUT_SECONDS": str(VISIBILITY_SECONDS),
            "PROVISIONER_SHUTDOWN_SECONDS": str(_SHUTDOWN_SECONDS / 2),
            "PROVISIONER_LEASE_SECONDS": str(LEASE_SECONDS),
            "PROVISIONER_RETRY_BASE_SECONDS": "0.2",
            "PROVISIONER_RETRY_MAX_SECONDS": "2",
            "PROVISIONER_MAX_RETRIES": "100",
        }
        super().__init__(name, directory, redis_url=redis_url, app=contestant.app, **env)
        self.is_paused = False
        self.gives_up_at: float | None = None
        self._options = ("--concurrency", str(CONCURRENCY), *contestant.options)
        self._ledger = ledger

    def begin(self) -> None:
        """Launch it; `is_ready` says when it takes work."""
        self.is_paused, self.gives_up_at = False, None
        self.launch(*self._options)

    @property
    def is_up(self) -> bool:
        """Whether it takes work and nothing is being done to it."""
        return not self.is_paused and self.gives_up_at is None and not self.has_ended and self.is_ready

    def strike(self, kind: str, *, process: int | None = None, is_excuse: bool = True) -> Fault:
        """Write down what is about to be done."""
        now = time.monotonic()
        fault = Fault(kind=kind, worker=self.pid, process=process, at=now, until=now, is_excuse=is_excuse)
        self._ledger.faults.append(fault)
        return fault

    def crash(self, kind: str = "worker killed") -> None:
        """Kill all its processes at once."""
        self.strike(kind)
        self.kill()

    def crash_child(self, choose: Callable[[list[int]], int]) -> None:
        """Kill one process of the pool."""
        if pids := self.pool_pids():
            pid = choose(pids)
            self.strike("pool process killed", process=pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def freeze(self) -> Callable[[], None]:
        """Stop all its processes; return what lets them go on, if they are still the same."""
        fault, session = self.strike("worker paused"), self.pid
        fault.until = float("inf")
        self.is_paused = True
        self.pause()

        def thaw() -> None:
            fault.until = time.monotonic()
            if not self.has_ended and self.pid == session:
                self.resume()
                self.is_paused = False

        return thaw

    def end(self, number: signal.Signals) -> None:
        """Tell it to end, within half a minute."""
        self.strike(f"worker told to end ({number.name})", is_excuse=number is not signal.SIGTERM)
        self.gives_up_at = time.monotonic() + _SHUTDOWN_SECONDS
        self.tell(number)


class Publisher:
    """A scheduler of another code base: stock Celery, nothing of ours."""

    def __init__(self, redis_url: str, ledger: Ledger) -> None:
        # Bounded, so that a scheduler that waits for a dead Redis can be told to stop.
        bounds = {"socket_timeout": 5.0, "socket_connect_timeout": 5.0}
        self._app = Celery("scheduler", broker=redis_url, broker_transport_options=bounds)
        self._ledger = ledger
        self._numbers = 0

    def send(self, task: str = WORK, **keywords: Any) -> int:
        """Publish a task that keeps its own book; see `order`."""
        return self._publish(task, lambda number: {"number": number, **keywords}, ignore_result=True)

    def order(self, task: str, **keywords: Any) -> int:
        """Publish until Celery says that it is published; return the task's number, which its id bears."""
        return self._publish(task, lambda _: keywords, ignore_result=False)

    def _publish(self, task: str, keywords: Callable[[int], dict[str, Any]], *, ignore_result: bool) -> int:
        self._numbers += 1
        number, at = self._numbers, time.monotonic()
        options = {"kwargs": keywords(number), "task_id": task_id(number), "ignore_result": ignore_result}
        while not self._is_published(task, options):
            time.sleep(0.1)
        self._ledger.sent[number] = Sent(number=number, at=at, until=time.monotonic())
        return number

    def _is_published(self, task: str, options: dict[str, Any]) -> bool:
        try:
            self._app.send_task(task, queue=QUEUE, **options)
        except (OperationalError, RedisError, OSError):
            return False
        return True

    def close(self) -> None:
        """Let go of all connections."""
        self._app.close()


class Workload(Protocol):
    """What a scheduler wants.

    Attributes:
        waiting: How many tasks it keeps published and not done.
    """

    waiting: int

    def send(self, publisher: Publisher) -> None:
        """Publish the next task."""

    def is_answered(self, number: int) -> bool:
        """Whether a task that noted no end has one all the same."""


class Stream:
    """A publisher in a thread of its own, which keeps its workers busy."""

    def __init__(self, publisher: Publisher, ledger: Ledger, workload: Workload) -> None:
        self._publisher = publisher
        self._ledger = ledger
        self._workload = workload
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.is_set():
            if len(self._ledger.lost) < self._workload.waiting:
                self._workload.send(self._publisher)
            else:
                time.sleep(0.005)

    def stop(self) -> None:
        """Stop once what is being published is published."""
        self._is_over.set()
        self._thread.join()


@dataclass(kw_only=True)
class Site:
    """Redis, ledger, scheduler and workers of one contestant.

    Attributes:
        contestant: Which kind its workers are.
        directory: Its own.
        server: Its Redis, which writes before it answers.
        ledger: What happened.
        publisher: The scheduler.
        members: Its workers so far.
    """

    contestant: Contestant
    directory: Path
    server: RedisServer
    ledger: Ledger
    publisher: Publisher
    members: list[Member]

    def member(self, name: str, *, port: int | None = None) -> Member:
        """Make a worker, not begun yet, on the site's Redis or what stands before it at `port`."""
        url = self.server.url if port is None else f"redis://127.0.0.1:{port}/0"
        made = Member(name, self.directory / name, contestant=self.contestant, redis_url=url, ledger=self.ledger)
        self.members.append(made)
        return made

    def running(self, *names: str, **env: str) -> list[Member]:
        """Make workers, with more in their environment, and wait until they take work."""
        made = [self.member(name) for name in names]
        for each in made:
            each.env |= env
            each.begin()
        for each in made:
            each.wait_until_ready()
        return made

    def far(self, port: int) -> Member:
        """Make a worker behind what stands before Redis at `port`, and wait until it takes work."""
        made = self.member("far", port=port)
        made.begin()
        made.wait_until_ready()
        return made

    def idle(self) -> None:
        """Wait until workers that have nothing to do surely wait for a task."""
        time.sleep(1.5)

    def until(self, is_so: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS) -> bool:
        """Read the ledger until something is so; return false if it does not come to be in time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.ledger.read()
            if is_so():
                return True
            time.sleep(0.01)
        return False

    def is_done(self, task: int, *, seconds: float = PATIENCE_SECONDS) -> bool:
        """Wait for a task; return false if it is not done in time."""
        return self.until(lambda: task in self.ledger.done, seconds=seconds)

    def begun(self, task: int, *, times: int = 1) -> Execution:
        """Return the task's n-th execution once it has begun.

        Raises:
            TimeoutError: It does not.
        """
        if not self.until(lambda: len(self.ledger.executions[task]) >= times, seconds=2 * PATIENCE_SECONDS):
            raise TimeoutError(f"task {task} has not begun {times} times")
        return self.ledger.executions[task][times - 1]


@contextmanager
def site(contestant: Contestant, directory: Path) -> Iterator[Site]:
    """Set one up in an empty directory; in the end everything is killed."""
    (directory / "redis").mkdir(parents=True)
    ledger = Ledger(directory / "ledger")
    with redis_server(directory / "redis", appendonly=True) as server:
        publisher = Publisher(server.url, ledger)
        members: list[Member] = []
        try:
            yield Site(
                contestant=contestant,
                directory=directory,
                server=server,
                ledger=ledger,
                publisher=publisher,
                members=members,
            )
        finally:
            for each in members:
                each.kill()
            publisher.close()
            ledger.close()
