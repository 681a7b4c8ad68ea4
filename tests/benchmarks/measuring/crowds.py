# SPDX-License-Identifier: Apache-2.0
"""Readers and a writer at one read-write lock: how it passes between them, and how long a writer waits."""

import multiprocessing
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

import redis

from tests.benchmarks.peers.locks import Handle, LockPeer
from worker.lock import LockMode

Connect = Callable[[], redis.Redis]

HOLD_SECONDS = 0.02
READER_PROCESSES = 2
READERS_EACH = 5
_NAME = "{bench}:crowd"
_PAUSE_SECONDS = 0.1
# A child inherits what cannot be pickled; it makes its own connections.
_fork = multiprocessing.get_context("fork")


@dataclass(frozen=True, kw_only=True)
class HandOver:
    """Seconds of one round, each from the start of the release that made way.

    Attributes:
        to_writer: From the last reader's release to the waiting writer's grant.
        to_first: From the writer's release to the first of the waiting readers.
        to_last: To the last of them.
    """

    to_writer: float
    to_first: float
    to_last: float


@dataclass(frozen=True, kw_only=True)
class Saturation:
    """What came of a writer among readers that never all pause.

    Attributes:
        waits: Seconds until each grant to the writer.
        pending: For how long its last request had waited in vain at the end.
        reads_per_second: Grants to all readers.
    """

    waits: Sequence[float]
    pending: float
    reads_per_second: float


@contextmanager
def _child(target: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    """Run a function in a process of its own, killed at the end; it gets the other end of the pipe first."""
    ours, theirs = _fork.Pipe()
    process: BaseProcess = _fork.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    try:
        yield ours
    finally:
        process.kill()
        process.join()


def hand_over(peer: LockPeer, connect: Connect, *, readers: int, rounds: int) -> list[HandOver]:
    """Let readers and a writer, which is a process of its own, take turns."""
    with _child(_obey, peer, connect) as writer, connect() as client, ThreadPoolExecutor(readers) as threads:
        handles = [peer.open(client, _NAME, LockMode.SHARED) for _ in range(readers)]
        return [_round(handles, writer, threads) for _ in range(rounds)]


def _obey(orders: Connection, peer: LockPeer, connect: Connect) -> None:
    """Be the writer: acquire at an order and tell when it was granted, release at the next and tell when it began."""
    handle = peer.open(connect(), _NAME, LockMode.EXCLUSIVE)
    while True:
        orders.recv()
        handle.acquire()
        orders.send(time.monotonic())
        orders.recv()
        orders.send(time.monotonic())
        handle.release()


def _round(handles: Sequence[Handle], writer: Connection, threads: ThreadPoolExecutor) -> HandOver:
    list(threads.map(_granted_at, handles))
    writer.send("acquire")
    _let_them_queue()
    for handle in handles[:-1]:
        handle.release()
    given_up_at = time.monotonic()
    handles[-1].release()
    to_writer = writer.recv() - given_up_at

    grants = threads.map(_granted_at, handles)
    _let_them_queue()
    writer.send("release")
    given_up_at = writer.recv()
    waits = sorted(at - given_up_at for at in grants)
    for handle in handles:
        handle.release()
    return HandOver(to_writer=to_writer, to_first=waits[0], to_last=waits[-1])


def _granted_at(handle: Handle) -> float:
    handle.acquire()
    return time.monotonic()


def _let_them_queue() -> None:
    # Not always as long, or who polls would be met at the same point of its interval each time.
    time.sleep(_PAUSE_SECONDS + random.uniform(0, _PAUSE_SECONDS))


def saturate(peer: LockPeer, connect: Connect, *, seconds: float) -> Saturation:
    """Let ten readers in two processes come and go without a pause between, and a writer ask now and then."""
    counts = _fork.RawArray("L", READER_PROCESSES * READERS_EACH)
    with _child(_read, peer, connect, counts, 0), _child(_read, peer, connect, counts, READERS_EACH):
        time.sleep(0.5)
        with _child(_write, peer, connect) as writer:
            started, reads = time.monotonic(), sum(counts)
            waits, pending = _listen(writer, until=started + seconds)
            reads_per_second = (sum(counts) - reads) / (time.monotonic() - started)
    return Saturation(waits=waits, pending=pending, reads_per_second=reads_per_second)


def _read(_orders: Connection, peer: LockPeer, connect: Connect, counts: Any, first: int) -> None:
    client = connect()

    def go_on(slot: int) -> None:
        handle = peer.open(client, _NAME, LockMode.SHARED)
        while True:
            handle.acquire()
            counts[slot] += 1
            time.sleep(HOLD_SECONDS)
            handle.release()

    readers = [Thread(target=go_on, args=(first + number,)) for number in range(READERS_EACH)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()


def _write(results: Connection, peer: LockPeer, connect: Connect) -> None:
    handle = peer.open(connect(), _NAME, LockMode.EXCLUSIVE)
    while True:
        time.sleep(random.uniform(0, _PAUSE_SECONDS))
        results.send(time.monotonic())
        handle.acquire()
        results.send(time.monotonic())
        handle.release()


def _listen(writer: Connection, *, until: float) -> tuple[list[float], float]:
    """Return the waits of the writer, and that of the request it has not been granted by then."""
    waits: list[float] = []
    asked_at: float | None = None
    while writer.poll(max(0.0, until - time.monotonic())):
        at = writer.recv()
        if asked_at is None:
            asked_at = at
        else:
            waits.append(at - asked_at)
            asked_at = None
    return waits, 0.0 if asked_at is None else time.monotonic() - asked_at
