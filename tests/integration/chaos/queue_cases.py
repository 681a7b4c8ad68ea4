# SPDX-License-Identifier: Apache-2.0
"""Harm at the worst moment, one kind at a time: what chance hits once in a thousand tasks is hit every time."""

import signal
import time
from collections.abc import Iterator
from functools import partial

from tests.integration.chaos.queue_failover import failover
from tests.integration.chaos.queue_finding import Case, Finding, out_of
from tests.integration.chaos.queue_fleet import (
    CONCURRENCY,
    LONG_SECONDS,
    PATIENCE_SECONDS,
    VISIBILITY_SECONDS,
    Member,
    Site,
)
from tests.integration.chaos.queue_ledger import Execution, spread
from tests.integration.chaos.queue_names import POISON
from tests.support.proxy import proxy_to

_DEAD_CONNECTION_SECONDS = 75.0
_POISON_SECONDS = 15.0
_STANDSTILL_SECONDS = 8.0
_DELIVERIES = 4
RETAKEN_SECONDS = 5.0


def frozen_while_idle(site: Site, rounds: int = 3) -> Iterator[Finding]:
    """Stop a worker that waits for work, publish a task, kill the worker."""
    (idle,) = site.running("w0")
    lost = 0
    for number in range(rounds):
        site.idle()
        idle.freeze()
        task = site.publisher.send()
        time.sleep(0.3)
        idle.crash("paused worker killed")
        (idle,) = site.running(f"w{number + 1}")
        lost += not site.is_done(task)
    yield Finding(
        what="idle worker stopped, task sent, worker killed: lost", seen=out_of(lost, rounds), is_good=not lost
    )


def cut_while_idle(site: Site, rounds: int = 3) -> Iterator[Finding]:
    """Lose the reply that brings a waiting worker its task, and the connection with it."""
    lost = 0
    with proxy_to(site.server.port) as proxy:
        site.far(proxy.port)
        for _ in range(rounds):
            site.idle()
            proxy.drops_replies = True
            task = site.publisher.send()
            time.sleep(0.3)
            proxy.cut()
            proxy.drops_replies = False
            lost += not site.is_done(task)
    yield Finding(what="reply with the task lost, connection cut: lost", seen=out_of(lost, rounds), is_good=not lost)


def long_task(site: Site) -> Iterator[Finding]:
    """Run a task for longer than the visibility timeout, with nothing done to anybody and somebody idle beside."""
    site.running("w1", "w2")
    task = site.publisher.send(seconds=LONG_SECONDS)
    site.is_done(task, seconds=LONG_SECONDS + PATIENCE_SECONDS)
    # Copies of it, if there are any, begin before the first one ends.
    time.sleep(1)
    site.ledger.read()
    runs = len(site.ledger.executions[task])
    what = f"task of {LONG_SECONDS:.0f} s, timeout {VISIBILITY_SECONDS} s, no fault: executions"
    yield Finding(what=what, seen=str(runs), is_good=runs == 1)


def retaken(site: Site, rounds: int = 5) -> Iterator[Finding]:
    """Kill a worker in the middle of a task, then one process of its pool, another worker standing by."""
    members = site.running("w1", "w2")
    for what, harm in (("worker", Member.crash), ("pool process", partial(_crash_child, site))):
        seconds = []
        for _ in range(rounds):
            task = site.publisher.send(seconds=1.0)
            first = site.begun(task)
            member = _whose(members, first)
            struck_at = time.monotonic()
            harm(member)
            again = site.begun(task, times=2)
            seconds.append(again.begun_at - struck_at)
            if member.has_ended:
                member.begin()
                member.wait_until_ready()
            site.is_done(task)
        is_good = max(seconds) < RETAKEN_SECONDS
        yield Finding(what=f"{what} killed: its task begins again after", seen=spread(seconds), is_good=is_good)


def _crash_child(site: Site, member: Member) -> None:
    running = {each.process for runs in site.ledger.executions.values() for each in runs if each.ended_at is None}
    member.crash_child(lambda pids: next(pid for pid in pids if pid in running))


def returned(site: Site) -> Iterator[Finding]:
    """Stop a worker until its task is run by another, let it go on and finish, then kill that other one."""
    members = site.running("w1", "w2")
    task = site.publisher.send(seconds=6.0)
    first = _whose(members, site.begun(task))
    thaw = first.freeze()
    second = _whose(members, site.begun(task, times=2))
    thaw()
    site.is_done(task)
    time.sleep(0.5)
    second.crash()
    has_survived = site.until(lambda: len(site.ledger.executions[task]) > 2)
    seen = "survived" if has_survived else "lost"
    yield Finding(what="paused worker returns, message is another's by now: it", seen=seen, is_good=has_survived)


def told_to_end(site: Site) -> Iterator[Finding]:
    """Tell a worker to end while it and another are busy, and tasks wait."""
    members = site.running("w1", "w2")
    for number in (signal.SIGTERM, signal.SIGQUIT):
        tasks = [site.publisher.send(seconds=0.8) for _ in range(6)] + [site.publisher.send() for _ in range(300)]
        site.begun(tasks[3])
        members[0].end(number)
        started = time.monotonic()
        has_ended = site.until(lambda: members[0].has_ended, seconds=30)
        seconds = time.monotonic() - started
        members[0].kill()
        members[0].begin()
        members[0].wait_until_ready()
        site.until(lambda tasks=tasks: site.ledger.done.issuperset(tasks))
        time.sleep(0.5)
        site.ledger.read()
        lost = len(set(tasks) - site.ledger.done)
        twice = sum(sum(run.is_done for run in site.ledger.executions[task]) > 1 for task in tasks)
        seen = f"{seconds:.1f} s, {lost}, {twice}"
        yield Finding(
            what=f"{number.name} amid work: ended after, lost, done twice",
            seen=seen,
            is_good=has_ended and not lost and not twice,
        )


def refused(site: Site, rounds: int = 3) -> Iterator[Finding]:
    """Let Redis be unreachable for half a second while a task runs."""
    ended, seconds = 0, []
    with proxy_to(site.server.port) as proxy:
        member = site.far(proxy.port)
        for _ in range(rounds):
            site.begun(site.publisher.send(seconds=1.5))
            proxy.refuses = True
            proxy.cut()
            time.sleep(0.5)
            proxy.refuses = False
            lifted_at = time.monotonic()
            task = site.publisher.send()
            site.until(lambda task=task: task in site.ledger.done or member.has_ended)
            if member.has_ended:
                ended += 1
                member.kill()
                member.begin()
                member.wait_until_ready()
            site.is_done(task)
            seconds.append(time.monotonic() - lifted_at)
    yield Finding(what="Redis refuses for 0.5 s: worker ended by itself", seen=out_of(ended, rounds), is_good=not ended)
    is_good = max(seconds) < PATIENCE_SECONDS
    yield Finding(what="… the next task is done after", seen=spread(seconds), is_good=is_good)


def redis_killed(site: Site, rounds: int = 3) -> Iterator[Finding]:
    """Kill Redis while tasks run and wait, and start it again after a second."""
    site.running("w1", "w2")
    seconds, tasks = [], []
    for _ in range(rounds):
        tasks += [site.publisher.send(seconds=0.3) for _ in range(12)]
        site.begun(tasks[-10])
        site.server.kill()
        time.sleep(1)
        site.server.start()
        started_at = time.monotonic()
        tasks.append(site.publisher.send())
        site.is_done(tasks[-1])
        seconds.append(time.monotonic() - started_at)
    site.until(lambda: site.ledger.done.issuperset(tasks))
    lost = len(set(tasks) - site.ledger.done)
    yield Finding(what="Redis killed and restarted amid work: lost", seen=out_of(lost, len(tasks)), is_good=not lost)
    yield Finding(
        what="… started again, the next task is done after",
        seen=spread(seconds),
        is_good=max(seconds) < PATIENCE_SECONDS,
    )


def redis_paused(site: Site) -> Iterator[Finding]:
    """Let Redis stand still for longer than a lease, with a task on each of two workers."""
    site.running("w1", "w2")
    tasks = [site.publisher.send(seconds=LONG_SECONDS) for _ in range(2 * CONCURRENCY)]
    for task in tasks:
        site.begun(task)
    site.server.pause()
    time.sleep(_STANDSTILL_SECONDS)
    site.server.resume()
    tasks.append(site.publisher.send())
    has_ended = site.until(lambda: site.ledger.done.issuperset(tasks), seconds=LONG_SECONDS + PATIENCE_SECONDS)
    time.sleep(1)
    site.ledger.read()
    runs = sum(len(site.ledger.executions[task]) for task in tasks)
    what = f"Redis stands still for {_STANDSTILL_SECONDS:.0f} s amid {len(tasks) - 1} tasks: executions of {len(tasks)}"
    yield Finding(what=what, seen=str(runs), is_good=has_ended and runs == len(tasks))


def dead_connection(site: Site) -> Iterator[Finding]:
    """Let a waiting worker's connections die without a sign, as behind a firewall that forgot them."""
    with proxy_to(site.server.port) as proxy:
        site.far(proxy.port)
        site.idle()
        proxy.deaden()
        started = time.monotonic()
        is_done = site.is_done(site.publisher.send(), seconds=_DEAD_CONNECTION_SECONDS)
        seconds = time.monotonic() - started
    seen = f"{seconds:.1f} s" if is_done else f"not within {_DEAD_CONNECTION_SECONDS:.0f} s"
    yield Finding(what="connections dead without a sign: the next task is done after", seen=seen, is_good=is_done)


def poisonous(site: Site) -> Iterator[Finding]:
    """Send a task that kills its process, whichever runs it."""
    site.running("w1", "w2", PROVISIONER_MAX_DELIVERIES=str(_DELIVERIES))
    poison = site.publisher.send(POISON)
    site.until(lambda: len(site.ledger.executions[poison]) > _DELIVERIES, seconds=_POISON_SECONDS)
    killed = len(site.ledger.executions[poison])
    # It is not one of those that have to be done.
    del site.ledger.sent[poison]
    is_done = site.is_done(site.publisher.send())
    is_over = killed <= _DELIVERIES
    seen = f"after {killed} processes" if is_over else "never"
    yield Finding(what=f"deadly task, limit {_DELIVERIES}: laid aside", seen=seen, is_good=is_over and is_done)


CASES: tuple[Case, ...] = (
    frozen_while_idle,
    cut_while_idle,
    long_task,
    retaken,
    returned,
    told_to_end,
    refused,
    redis_killed,
    redis_paused,
    dead_connection,
    poisonous,
    failover,
)


def _whose(members: list[Member], execution: Execution) -> Member:
    return next(member for member in members if member.pid == execution.worker)
