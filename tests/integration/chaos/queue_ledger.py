# SPDX-License-Identifier: Apache-2.0
"""What the tasks noted, beside what was done to their workers, and what follows from both.

A task that runs again although it was done is nobody's fault if its worker was killed, paused or cut off before it
could say so: then the message is handed out again, and must be. Without such an excuse it is the queue's doing.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

LEAD_SECONDS = 15.0
"""How long before an execution a fault may have struck to excuse it: a paused worker holds messages it took before."""

RECOVERED = frozenset({"worker killed", "worker paused", "paused worker killed", "pool process killed"})
"""Faults that take tasks away from a worker for good, as far as others can tell."""

TRAIL_SECONDS = 2.0
"""How long after an execution its acknowledgement may still have been under way."""


@dataclass(eq=False, kw_only=True)
class Execution:
    """One run of one task.

    Attributes:
        number: The task.
        worker: The session of its worker, which is its main process.
        process: The child it ran in.
        begun_at: On the machine's monotonic clock, as all times here.
        ended_at: When it noted its end; None if it never did.
        is_done: Whether that end was its last line, and not that it was put off.
    """

    number: int
    worker: int
    process: int
    begun_at: float
    ended_at: float | None = None
    is_done: bool = False

    def overlaps(self, other: "Execution") -> bool:
        """Tell whether both ran at a time; one that never noted its end counts as its beginning only."""
        first, second = sorted((self, other), key=lambda each: each.begun_at)
        return first.ended_at is not None and first.ended_at > second.begun_at


@dataclass(eq=False, kw_only=True)
class Fault:
    """Something that was done to a worker, or to Redis.

    Attributes:
        kind: In words.
        worker: Whom it struck; None for everybody.
        process: The one child it struck, or None.
        at: When it began.
        until: When it was over; still under way while infinite.
        is_excuse: Whether it explains that a task ran twice; an orderly end of a worker does not.
    """

    kind: str
    worker: int | None
    process: int | None = None
    at: float
    until: float = float("inf")
    is_excuse: bool = True

    def strikes(self, execution: Execution) -> bool:
        """Tell whether it could have kept the execution's worker from acknowledging, or from knowing better."""
        if not self.is_excuse or self.worker not in {None, execution.worker}:
            return False
        ended_at = execution.ended_at if execution.ended_at is not None else float("inf")
        return self.at <= ended_at + TRAIL_SECONDS and self.until >= execution.begun_at - LEAD_SECONDS

    def ends(self, execution: Execution) -> bool:
        """Tell whether it took the execution away in the middle."""
        is_hit = self.worker == execution.worker and self.process in {None, execution.process}
        return is_hit and execution.begun_at <= self.at and (execution.ended_at or float("inf")) > self.at


@dataclass(kw_only=True)
class Sent:
    """One message of the scheduler's.

    Attributes:
        number: The task.
        at: When it began to be published.
        until: When Celery said that it was.
    """

    number: int
    at: float
    until: float


class Ledger:
    """Reads the tasks' file as it grows.

    Attributes:
        path: The file.
        executions: By task, in the order of their beginnings.
        sent: By task.
        faults: In order.
        done: Tasks that were done at least once.
        failed: Tasks that raised for good.
    """

    def __init__(self, path: Path) -> None:
        path.touch()
        self.path = path
        self.executions: dict[int, list[Execution]] = defaultdict(list)
        self.sent: dict[int, Sent] = {}
        self.faults: list[Fault] = []
        self.done: set[int] = set()
        self.failed: set[int] = set()
        self._file = path.open("rb")
        self._running: dict[tuple[int, int], Execution] = {}

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def read(self) -> None:
        """Take in what was written since the last time."""
        for line in self._file:
            event, number, at, worker, process = line.split()
            self._take(event.decode(), int(number), float(at), (int(worker), int(process)))

    def _take(self, event: str, number: int, at: float, where: tuple[int, int]) -> None:
        worker, process = where
        if event == "begun":
            begun = Execution(number=number, worker=worker, process=process, begun_at=at)
            self.executions[number].append(begun)
            self._running[process, number] = begun
            return
        execution = self._running.pop((process, number))
        execution.ended_at, execution.is_done = at, event == "done"
        if execution.is_done:
            self.done.add(number)
        elif event == "failed":
            self.failed.add(number)

    @property
    def lost(self) -> set[int]:
        """Tasks that were published and have come to no end."""
        return self.sent.keys() - self.done - self.failed

    def verdict(self) -> "Verdict":
        """Judge everything read so far; nothing runs any more."""
        verdict = Verdict(
            published=len(self.sent), done=len(self.done), lost=len(self.lost), failed=len(self.failed - self.done)
        )
        for executions in self.executions.values():
            self._judge(executions, verdict)
        for kind, seconds in self._recoveries():
            verdict.recoveries.setdefault(kind, []).append(seconds)
        return verdict

    def _judge(self, executions: Sequence[Execution], verdict: "Verdict") -> None:
        runs = [each for each in executions if each.is_done or each.ended_at is None]
        verdict.executions += len(executions)
        verdict.begun_twice += len(runs) > 1
        done = [each for each in runs if each.is_done]
        verdict.done_twice += len(done) > 1
        again = [pair for pair in pairwise(runs) if pair[0].is_done]
        verdict.done_twice_unexcused += any(not self._is_excused(pair) for pair in again)
        beside = [pair for pair in pairwise(runs) if pair[0].overlaps(pair[1])]
        verdict.beside += bool(beside)
        verdict.beside_unexcused += any(not self._is_excused(pair) for pair in beside)

    def _is_excused(self, pair: Sequence[Execution]) -> bool:
        """Tell whether a fault explains two runs, or that the scheduler may have sent two messages.

        A fault of whoever had the task until then: one that put it off has published it anew, and of two, both have.
        """
        had = [each for each in self.executions[pair[0].number] if each.begun_at <= pair[1].begun_at]
        if any(fault.strikes(execution) for fault in self.faults for execution in had):
            return True
        sent = self.sent[pair[0].number]
        excuses = (fault for fault in self.faults if fault.worker is None and fault.is_excuse)
        return any(fault.at <= sent.until and fault.until >= sent.at for fault in excuses)

    def _recoveries(self) -> Iterator[tuple[str, float]]:
        """Return how long after each fault what it had interrupted began again; what went on by itself has no part."""
        by_worker: dict[int, list[Execution]] = defaultdict(list)
        for each in self._all():
            by_worker[each.worker].append(each)
        for fault in self.faults:
            for execution in by_worker[fault.worker or 0] if fault.kind in RECOVERED else ():
                if fault.ends(execution):
                    later = [each.begun_at for each in self.executions[execution.number] if each.begun_at > fault.at]
                    if later:
                        yield fault.kind, min(later) - fault.at

    def _all(self) -> Iterable[Execution]:
        return (each for executions in self.executions.values() for each in executions)


@dataclass(kw_only=True)
class Verdict:
    """What came of one run.

    Attributes:
        published: Tasks that Celery told the scheduler were published.
        done: Tasks of them that ran to their end at least once.
        lost: Tasks that came to no end.
        failed: Tasks that raised for good.
        executions: Runs begun, those that were put off or interrupted included.
        begun_twice: Tasks that began more than once without having been put off.
        done_twice: Tasks that ran to their end more than once: a careless task's effect would be there twice.
        done_twice_unexcused: Those of them that nothing explains but the queue.
        beside: Tasks that ran in two processes at a time.
        beside_unexcused: Those of them that nothing explains but the queue.
        recoveries: By kind of fault, the seconds until what it interrupted began again.
    """

    published: int
    done: int
    lost: int
    failed: int = 0
    executions: int = 0
    begun_twice: int = 0
    done_twice: int = 0
    done_twice_unexcused: int = 0
    beside: int = 0
    beside_unexcused: int = 0
    recoveries: dict[str, list[float]] = field(default_factory=dict)


def spread(seconds: Sequence[float]) -> str:
    """Return median and maximum, as tables show them."""
    return f"{statistics.median(seconds):.1f} s, {max(seconds):.1f} s ({len(seconds)})" if seconds else "-"
