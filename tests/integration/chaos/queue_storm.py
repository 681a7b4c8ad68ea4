# SPDX-License-Identifier: Apache-2.0
"""Random harm to three workers and their Redis while a scheduler keeps publishing; then calm, and a verdict."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from tests.integration.chaos.queue_fleet import LONG_SECONDS, VISIBILITY_SECONDS, Member, Site, Stream, Workload
from tests.integration.chaos.queue_ledger import Fault, Verdict
from tests.support.proxy import Proxy, proxy_to

_QUIET_SECONDS = LONG_SECONDS + 3 * VISIBILITY_SECONDS
"""When nothing was done for so long, what is not done is lost."""


@dataclass(kw_only=True)
class Outcome:
    """One storm.

    Attributes:
        verdict: On the tasks.
        faults: How often what was done.
        ended: How often a worker ended that nobody had told to.
        hung: How often one did not end that was told to.
        seconds: How long it took until the last task was done.
        doubled: Effects that are there too often, once somebody has looked; None for tasks that have none.
    """

    verdict: Verdict
    faults: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    hung: int = 0
    seconds: float = 0.0
    doubled: int | None = None


class Storm:
    """One run over one site."""

    def __init__(
        self, site: Site, proxy: Proxy, *, workload: Workload, chance: random.Random, most: int, pace: float
    ) -> None:
        self._site = site
        self._workload = workload
        self._proxy = proxy
        self._chance = chance
        self._most = most
        self._pace = pace
        self._members = [site.member("w1"), site.member("w2"), site.member("far", port=proxy.port)]
        self._far = self._members[-1]
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._is_redis_up = True
        self.outcome = Outcome(verdict=Verdict(published=0, done=0, lost=0))
        self._faults: dict[Callable[[], None], float] = {
            partial(self._to_anybody, self._kill): 4,
            partial(self._to_anybody, self._kill_child): 4,
            partial(self._to_anybody, self._freeze): 3,
            partial(self._to_anybody, self._freeze_and_kill): 3,
            partial(self._to_anybody, lambda member: member.end(signal.SIGTERM)): 2,
            partial(self._to_anybody, lambda member: member.end(signal.SIGQUIT)): 2,
            self._lose_replies: 3,
            self._delay: 2,
            self._kill_redis: 1.5,
            self._pause_redis: 1,
            self._fill_redis: 1.5,
        }

    def run(self, seconds: float, *, report: Callable[[str], None]) -> Outcome:
        """Rage for so long, or until so many tasks are published; then let everything come to its end."""
        ledger = self._site.ledger
        for each in self._members:
            each.begin()
        for each in self._members:
            each.wait_until_ready()
        stream = Stream(self._site.publisher, ledger, self._workload)
        started = time.monotonic()
        stream.start()
        try:
            self._rage(started + seconds, report)
        finally:
            self._restore()
            stream.stop()
        self._calm()
        self.outcome.seconds = time.monotonic() - started
        self.outcome.verdict = ledger.verdict()
        self.outcome.faults = Counter(fault.kind for fault in ledger.faults)
        return self.outcome

    def _rage(self, until: float, report: Callable[[str], None]) -> None:
        ledger = self._site.ledger
        fault_at = report_at = time.monotonic() + 1
        while (now := time.monotonic()) < until and len(ledger.sent) < self._most:
            self._turn(now)
            if now >= fault_at:
                (fault,) = self._chance.choices(list(self._faults), list(self._faults.values()))
                fault()
                fault_at = time.monotonic() + self._chance.uniform(0.3, 1.7) * self._pace
            if now >= report_at:
                report(f"{len(ledger.sent)} published, {len(ledger.done)} done, {len(ledger.faults)} faults")
                report_at = now + 10
            time.sleep(0.01)

    def _turn(self, now: float) -> None:
        """Read, do what is due, and start again whoever ended, as a supervisor would."""
        self._site.ledger.read()
        for act in [act for at, act in self._later if at <= now]:
            act()
        self._later = [(at, act) for at, act in self._later if at > now]
        for member in self._members:
            self._look_after(member, now)

    def _look_after(self, member: Member, now: float) -> None:
        if member.has_ended:
            if member.gives_up_at is None:
                self.outcome.ended += 1
                member.strike("worker ended by itself")
            # Its children may have outlived it.
            member.kill()
            member.begin()
        elif member.gives_up_at is not None and now > member.gives_up_at:
            self.outcome.hung += 1
            self._replace(member, "worker that would not end killed")

    def _replace(self, member: Member, kind: str) -> None:
        member.crash(kind)
        member.begin()

    # Faults. Each needs somebody it can be done to, and is left out if there is nobody.

    def _to_anybody(self, harm: Callable[[Member], None]) -> None:
        up = [member for member in self._members if member.is_up]
        if up:
            harm(self._chance.choice(up))

    def _kill(self, member: Member) -> None:
        self._replace(member, "worker killed")

    def _kill_child(self, member: Member) -> None:
        member.crash_child(self._chance.choice)

    def _freeze(self, member: Member) -> None:
        self._after(self._chance.uniform(0.5, 3 * VISIBILITY_SECONDS), member.freeze())

    def _freeze_and_kill(self, member: Member) -> None:
        member.freeze()
        self._after(self._chance.uniform(0.1, 1.0), lambda: self._replace(member, "paused worker killed"))

    def _lose_replies(self) -> None:
        if self._far.is_up and not self._proxy.drops_replies:
            fault = self._far.strike("replies lost, connections cut")
            fault.until = float("inf")
            self._proxy.drops_replies = True
            self._after(self._chance.uniform(0.1, 1.5), lambda: self._cut(fault))

    def _cut(self, fault: Fault) -> None:
        self._proxy.cut()
        self._proxy.drops_replies = False
        fault.until = time.monotonic()

    def _delay(self) -> None:
        if self._far.is_up:
            self._far.strike("replies delayed", is_excuse=False)
            self._proxy.delay_seconds = self._chance.uniform(0.01, 0.2)
            self._after(self._chance.uniform(1.0, 4.0), lambda: setattr(self._proxy, "delay_seconds", 0.0))

    def _kill_redis(self) -> None:
        if self._is_redis_up:
            fault = self._strike_redis("Redis killed and restarted")
            self._site.server.kill()
            self._after(self._chance.uniform(0.0, 1.5), lambda: self._end_outage(fault, self._site.server.start))

    def _pause_redis(self) -> None:
        if self._is_redis_up:
            fault = self._strike_redis("Redis paused")
            self._site.server.pause()
            self._after(self._chance.uniform(0.2, 10.0), lambda: self._end_outage(fault, self._site.server.resume))

    def _fill_redis(self) -> None:
        if self._is_redis_up:
            fault = self._strike_redis("Redis full", is_excuse=False)
            self._limit_memory(1)
            self._after(self._chance.uniform(0.5, 5.0), lambda: self._end_outage(fault, partial(self._limit_memory, 0)))

    def _limit_memory(self, limit_bytes: int) -> None:
        with self._site.server.client() as client:
            client.config_set("maxmemory", limit_bytes)

    def _strike_redis(self, kind: str, *, is_excuse: bool = True) -> Fault:
        self._is_redis_up = False
        fault = Fault(kind=kind, worker=None, at=time.monotonic(), is_excuse=is_excuse)
        self._site.ledger.faults.append(fault)
        return fault

    def _end_outage(self, fault: Fault, act: Callable[[], None]) -> None:
        act()
        fault.until = time.monotonic()
        self._is_redis_up = True

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, act))

    # Afterwards.

    def _restore(self) -> None:
        """Do at once what was to come later: Redis goes on, and whoever stood still."""
        for _, act in self._later:
            act()
        self._later = []

    def _calm(self) -> None:
        """Wait until all is done, or nothing has been for long."""
        ledger, done, quiet_at = self._site.ledger, -1, 0.0
        while (ledger.lost and time.monotonic() - quiet_at < _QUIET_SECONDS) or done < 0:
            self._turn(time.monotonic())
            if len(ledger.done) > done:
                done, quiet_at = len(ledger.done), time.monotonic()
            time.sleep(0.05)
        ledger.done |= {number for number in ledger.lost if self._workload.is_answered(number)}


@contextmanager
def storm(
    site: Site, workload: Workload, *, chance: random.Random, most: int = 10**9, pace: float = 1.0
) -> Iterator[Storm]:
    """Prepare one: `most` tasks at most, `pace` seconds between two faults on average."""
    with proxy_to(site.server.port) as proxy:
        yield Storm(site, proxy, workload=workload, chance=chance, most=most, pace=pace)
