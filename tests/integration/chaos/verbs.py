# SPDX-License-Identifier: Apache-2.0
"""The verbs under fire: `python -m tests.integration.chaos.verbs --seconds 600`.

Three nodes, two of which share a store, with two workers each, on one Redis. Workers are killed and stopped beyond
their leases, Redis is emptied, killed and paused, each at least once. All the while every rootfs that was
answered and not destroyed must be complete, with its layers and its ref in the store. In the end the nodes recover, and
the stores hold exactly what is referenced.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.integration.chaos.checks import broken, left_of, surplus, surplus_on
from tests.integration.chaos.crew import Document, Worker, start
from tests.integration.chaos.model import Model, make_model
from tests.integration.chaos.scheduler import Ledger, Order, Scheduler, counted
from tests.support.mounts import mounts_below, unmount
from tests.support.redis_server import RedisServer, redis_server
from worker.errors import TransientError
from worker.runtime import make_provisioner
from worker.settings import Settings

LEASE_SECONDS = 1.0
_QUIET_SECONDS = 0.5
_VISIBILITY_SECONDS = 0.8
_WORKERS_PER_NODE = 2
_CHECK_SECONDS = 1.0
_DEADLY = 0.3
_DRAWS_PER_REDIS_FAULT = 5
REDIS_FAULTS = ("Redis emptied", "Redis killed and restarted", "Redis paused")
_STORES = {"n1": "shared", "n2": "shared", "n3": "own"}
_FORMATS = {"n1": None, "n2": "directory", "n3": None}


class Storm:
    """One run."""

    def __init__(self, server: RedisServer, directory: Path, *, seed: int) -> None:
        self._server = server
        self._directory = directory
        self._chance = random.Random(seed)
        self._model: Model = make_model(directory / "layout", self._chance)
        self.ledger = Ledger()
        self._scheduler = Scheduler(list(_STORES), list(self._model.images), self._chance, self.ledger)
        self._workers: list[Worker] = []
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._settings = {node: self._settings_of(node) for node in _STORES}
        self._observers = {node: make_provisioner(settings) for node, settings in self._settings.items()}
        self._faults: dict[Callable[[], None], float] = {
            self._kill: 6,
            self._pause: 6,
            self._flush: 1,
            self._restart_redis: 0.7,
            self._pause_redis: 0.7,
        }
        self._sure = self._chance.sample([self._flush, self._restart_redis, self._pause_redis], 3)
        self._draws = 0

    def _settings_of(self, node: str) -> Settings:
        return Settings(
            redis_url=self._server.url,
            node=node,
            work_dir=self._directory / node,
            store_dir=self._directory / _STORES[node],
            layer_format=_FORMATS[node],
            lease_seconds=LEASE_SECONDS,
            lock_timeout_seconds=3.0,
            heartbeat_seconds=_QUIET_SECONDS / 2,
        )

    def run(self, seconds: float, *, report: Callable[[Ledger], None]) -> Ledger:
        """Let it rage, let it calm down, and look at what is left."""
        try:
            for node in _STORES:
                for _ in range(_WORKERS_PER_NODE):
                    self._start(node)
            self._rage(seconds, report)
            self._calm()
            self._look_back()
        finally:
            for worker in self._workers:
                worker.kill()
            unmount(mounts_below(self._directory))
        return self.ledger

    def _rage(self, seconds: float, report: Callable[[Ledger], None]) -> None:
        now = time.monotonic()
        until, check_at, fault_at, report_at = now + seconds, now, now + 1, now + 10
        while (now := time.monotonic()) < until and not self.ledger.violations:
            self._turn(now, invents=True)
            if now >= check_at:
                self._check()
                check_at = now + _CHECK_SECONDS
            if now >= fault_at:
                self._next_fault()()
                fault_at = now + self._chance.uniform(0.1, 0.7)
            if now >= report_at:
                report(self.ledger)
                report_at = now + 10
            time.sleep(0.005)

    def _turn(self, now: float, *, invents: bool) -> None:
        """Take answers, hand out orders."""
        for act in [act for at, act in self._later if at <= now]:
            act()
        self._later = [(at, act) for at, act in self._later if at > now]
        for worker in [worker for worker in self._workers if not worker.is_paused and worker.has_stopped]:
            self._find_stopped(worker)
        for worker in self._workers:
            if worker.order is not None and not worker.is_paused and (answer := worker.take()) is not None:
                self._settle(worker, answer, now)
            if worker.order is None and not worker.is_paused:
                order = self._scheduler.due(worker.node, now)
                order = self._scheduler.invent(worker.node) if order is None and invents else order
                if order is not None:
                    self._deliver(worker, order, now)

    def _settle(self, worker: Worker, answer: Document, now: float) -> None:
        assert worker.order is not None
        order = self._scheduler.open[worker.order]
        worker.order = None
        self._scheduler.settle(order, answer, now=now)
        if order.verb == "destroy" and "error" not in answer:
            self.ledger.violations += left_of(order.container_id, self._observers[order.node])

    def _deliver(self, worker: Worker, order: Order, now: float) -> None:
        order.deliveries += 1
        order.attempts += 1
        # Again beside it, once the visibility timeout is over and if it is worth it.
        is_repeated = order.verb in {"provision", "destroy"} and order.deliveries == 1
        order.due_at = now + _VISIBILITY_SECONDS if is_repeated else None
        self.ledger.deliveries += 1
        worker.give(order.number, order.verb, order.keywords)

    def _check(self) -> None:
        for info in self._scheduler.alive.values():
            self.ledger.violations += broken(info, self._observers[info["node"]].node.store, self._model)
            self.ledger.checked += 1

    # Faults.

    def _next_fault(self) -> Callable[[], None]:
        self._draws += 1
        if self._sure and self._draws % _DRAWS_PER_REDIS_FAULT == 0:
            return self._sure.pop()
        (fault,) = self._chance.choices(list(self._faults), list(self._faults.values()))
        return fault

    def _start(self, node: str) -> None:
        self._workers.append(start(self._settings[node], self._directory / "workers.log", others=self._workers))

    def _kill(self) -> None:
        self.ledger.faults["workers killed"] += 1
        self._replace(self._chance.choice(self._workers))

    def _replace(self, worker: Worker) -> None:
        if worker.has_ended:
            self.ledger.violations.append(f"worker {worker.pid} ended by itself: see {self._directory}/workers.log")
        self._workers.remove(worker)
        worker.kill()
        if worker.order is not None:
            self._scheduler.lose(self._scheduler.open[worker.order], now=time.monotonic())
        self._start(worker.node)

    def _pause(self) -> None:
        worker = self._chance.choice(self._workers)
        if worker.is_paused:
            return
        self.ledger.faults["workers paused"] += 1
        self._let_stand(worker)

    def _find_stopped(self, worker: Worker) -> None:
        """Kill one that stopped itself at a step, or let it stand there for a while."""
        if self._chance.random() < _DEADLY:
            self.ledger.faults["workers killed at a step"] += 1
            self._replace(worker)
        else:
            self.ledger.faults["workers paused at a step"] += 1
            self._let_stand(worker)

    def _let_stand(self, worker: Worker) -> None:
        worker.signal(signal.SIGSTOP)
        seconds = self._chance.uniform(0.2, 2.5) * LEASE_SECONDS
        self._later.append((time.monotonic() + seconds, lambda: self._resume(worker)))

    def _resume(self, worker: Worker) -> None:
        if worker in self._workers:
            worker.signal(signal.SIGCONT)

    def _flush(self) -> None:
        self.ledger.faults["Redis emptied"] += 1
        self._server.resume()
        with self._server.client() as client:
            client.flushall()
        self._later.append((time.monotonic() + self._chance.uniform(0, 2), self._scheduler.recover_all))

    def _restart_redis(self) -> None:
        self.ledger.faults["Redis killed and restarted"] += 1
        self._server.kill()
        time.sleep(self._chance.uniform(0, 0.3))
        self._server.start()

    def _pause_redis(self) -> None:
        self.ledger.faults["Redis paused"] += 1
        self._server.pause()
        self._later.append((time.monotonic() + self._chance.uniform(0.1, 1.5), self._server.resume))

    # Afterwards.

    def _calm(self) -> None:
        """Let everything under way come to its end; what does not is a finding."""
        until = time.monotonic() + 60
        self._server.resume()
        for worker in self._workers:
            worker.signal(signal.SIGCONT)
        while time.monotonic() < until and (self._scheduler.open or self._later):
            self._turn(time.monotonic(), invents=False)
            time.sleep(0.005)
        for order in self._scheduler.open.values():
            self.ledger.violations.append(f"never answered: {order}")
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def _look_back(self) -> None:
        """Recover and prune as the workers of tomorrow would, and compare all there is with all there should be."""
        alive = self._scheduler.alive
        self._observers = {node: make_provisioner(settings) for node, settings in self._settings.items()}
        for node in self._observers.values():
            again(node.recover, {}, is_start=True)
        self._check()
        for node in self._observers.values():
            mine = [container_id for container_id, info in alive.items() if info["node"] == node.node.name]
            again(node.recover, {"known_container_ids": mine}, is_start=True)
        self._compare()
        for container_id, info in list(alive.items()):
            again(self._observers[info["node"]].destroy, {"container_id": container_id})
            del alive[container_id]
        self._compare()

    def _compare(self) -> None:
        alive = self._scheduler.alive
        for node in self._observers.values():
            again(node.prune, {})
        self._check()
        for name, node in self._observers.items():
            mine = {container_id: info for container_id, info in alive.items() if info["node"] == name}
            sharing = [info for info in alive.values() if _STORES[info["node"]] == _STORES[name]]
            self.ledger.violations += [f"{name}: {finding}" for finding in surplus_on(node, mine)]
            self.ledger.violations += [f"{name}: {finding}" for finding in surplus(node.node.store, sharing)]


def again(verb: Callable[..., object], keywords: Document, **more: object) -> None:
    """Retry what is transient, as a task does: Redis may still be in quarantine."""
    for attempt in range(20):
        try:
            verb(keywords, **more)
        except TransientError:
            if attempt == 19:
                raise
            time.sleep(0.2)
        else:
            return


def run(directory: Path, *, seconds: float, seed: int, report: Callable[[Ledger], None] = lambda _: None) -> Ledger:
    """Rage for so many seconds in an empty directory."""
    (directory / "redis").mkdir()
    with redis_server(directory / "redis", appendonly=True) as server:
        return Storm(server, directory, seed=seed).run(seconds, report=report)


def table(ledger: Ledger) -> Table:
    """Lay out what happened."""
    made = Table("what", "how often", title=f"{ledger.deliveries} orders delivered, {ledger.checked} trees hashed")
    for verb in ("provision", "destroy", "pull", "prune", "recover"):
        ends = counted(ledger.answers, verb)
        made.add_row(verb, ", ".join(f"{count} {how}" for how, count in ends.items()))
    for fault, count in sorted(ledger.faults.items()):
        made.add_row(fault, str(count))
    made.add_row("violations", str(len(ledger.violations)), style="red" if ledger.violations else "green")
    return made


def main() -> int:
    """Run from the command line; the exit status says whether anything was violated."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("CHAOS_SECONDS", "600")))
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9)
    arguments = parser.parse_args()
    console = Console()
    console.print(f"seed {arguments.seed}")
    started = time.monotonic()

    def report(ledger: Ledger) -> None:
        faults = sum(ledger.faults.values())
        console.print(f"{time.monotonic() - started:5.0f} s  {ledger.deliveries} orders  {faults} faults")

    with tempfile.TemporaryDirectory(prefix="chaos-verbs-") as directory:
        ledger = run(Path(directory), seconds=arguments.seconds, seed=arguments.seed, report=report)
    console.print(table(ledger))
    for violation in ledger.violations:
        console.print(f"[red]{violation}", highlight=False)
    return 1 if ledger.violations else 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
