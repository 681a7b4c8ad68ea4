# SPDX-License-Identifier: Apache-2.0
"""Processes that use one lock over one resource while they and their Redis are killed, paused and cut off.

Each process writes down what it did and when, by the one clock of the machine; `check` looks for what must never be:
users of the resource that overlap, leases that overlap, tokens out of order, requests that wait for ever. Run as a
program this module is one of the processes.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.proxy import Proxy, proxy_to
from tests.support.redis_server import Kind, RedisServer, redis_server
from worker.errors import LeaseLost, LockTimeout, ProvisionerError, StateUnavailable
from worker.lock import Lease, LockMode, ReadWriteLock
from worker.lock.lease import elapsed
from worker.paths import StorePaths
from worker.store.fence import Fence

NAME = "{provisioner:history}:lock:store"
REPOSITORY_DIR = Path(__file__).parents[2]
LEASE_SECONDS = 1.0
PATIENCE_SECONDS = 40.0
_WRITERS_SHARE = 0.25
_FLUSHED = "redis flushed"
_RESTARTED = "redis restarted"
_SET_BACK = "redis restarted from an old copy"
LOSSES = (_FLUSHED, _RESTARTED, _SET_BACK)
_DRAWS_PER_LOSS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A stretch of time in which a process proved that it held: the lease, or the resource under its fence."""

    owner: str
    mode: str
    token: int
    start: float
    end: float

    def overlaps(self, other: "Use") -> bool:
        """Whether both were there at one time and one of them should have been alone."""
        is_conflict = "exclusive" in {self.mode, other.mode} and self.owner != other.owner
        return is_conflict and self.start < other.end and other.start < self.end


@dataclass(slots=True, kw_only=True)
class History:
    """What happened.

    Attributes:
        leases: From the grant to the last check that passed.
        entries: From the fence's entry to its exit, or to the death of the process.
        waits: Seconds from each request to its grant.
        events: How often what was written down.
        faults: How often what was done to whom.
        losses: Between which times Redis lost data, or may have.
    """

    leases: list[Use] = field(default_factory=list)
    entries: list[Use] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    losses: list[tuple[float, float]] = field(default_factory=list)

    def ledger(self) -> str:
        """Sum up in a few lines."""
        waits = sorted(self.waits) or [0.0]
        share = {part: waits[min(len(waits) - 1, int(part * len(waits)))] for part in (0.5, 0.99, 1.0)}
        lines = {
            "faults": dict(self.faults),
            "events": dict(self.events),
            "entries": dict(Counter(use.mode for use in self.entries)),
            "waits": ", ".join(f"{part:.0%} within {seconds:.3f} s" for part, seconds in share.items()),
        }
        return "\n".join(f"{name:8} {value}" for name, value in lines.items())


def check(history: History) -> list[str]:
    """Return what must never be and was, in words; empty if all is well."""
    return [
        *(f"overlap at the resource: {one} and {other}" for one, other in overlapping(history.entries)),
        *(
            f"overlap of leases: {one} and {other}"
            for one, other in overlapping(history.leases)
            if not _is_excused(one, other, history.losses)
        ),
        *disorder(history.entries),
        *(["a request was left without an answer"] * history.events["unanswered"]),
        *(["the resource changed under its user"] * history.events["torn"]),
        *(["a process ended by itself"] * history.events["crashed"]),
    ]


def overlapping(uses: Sequence[Use]) -> Iterator[tuple[Use, Use]]:
    """Yield the pairs that overlap. O(n log n) and what overlaps."""
    open_uses: list[Use] = []
    for use in sorted(uses, key=lambda use: use.start):
        open_uses = [other for other in open_uses if other.end > use.start]
        yield from ((other, use) for other in open_uses if other.overlaps(use))
        open_uses.append(use)


def disorder(entries: Sequence[Use]) -> Iterator[str]:
    """Yield entries under a token that is older than one of the other mode, or of another writer, seen before."""
    seen = {"shared": 0, "exclusive": 0}
    for use in sorted(entries, key=lambda use: use.start):
        older_than = seen["exclusive"] if use.mode == "shared" else max(seen.values())
        if use.token <= older_than:
            yield f"token {use.token} after {older_than}: {use}"
        seen[use.mode] = max(seen[use.mode], use.token)


def _is_excused(one: Use, other: Use, losses: Sequence[tuple[float, float]]) -> bool:
    """Whether a reader came after Redis forgot a writer: the lock leaves these two to the fence, and says so."""
    first, second = sorted((one, other), key=lambda use: use.start)
    return (first.mode, second.mode) == ("exclusive", "shared") and any(
        first.start - LEASE_SECONDS < end and start < second.start for start, end in losses
    )


# One of the processes.


class Worker:
    """Takes the lock and uses the resource until it is killed; writes every step down before it relies on it."""

    def __init__(self, port: int, directory: Path) -> None:
        client = redis.Redis(host="127.0.0.1", port=port, socket_timeout=0.4, retry=Retry(NoBackoff(), 3))
        self._fence = Fence(StorePaths(directory))
        self._lock = ReadWriteLock(
            client, NAME, lease_seconds=LEASE_SECONDS, token_floor=self._fence.highest_token, holder="history"
        )
        self._random = random.Random()
        self._resource = directory / "resource"
        self._log = os.open(directory / f"{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def run(self) -> None:
        """Go on for ever."""
        while True:
            mode = LockMode.EXCLUSIVE if self._random.random() < _WRITERS_SHARE else LockMode.SHARED
            try:
                self._use(mode)
            except ProvisionerError as error:
                self._note(_ERRORS[type(error)])
                time.sleep(0.01)
            time.sleep(self._random.uniform(0, 0.01))

    def _use(self, mode: LockMode) -> None:
        asked_at = elapsed()
        try:
            lease = self._lock.acquire(mode, timeout_seconds=PATIENCE_SECONDS)
        except LockTimeout:
            self._note("unanswered")
            raise
        try:
            self._note("granted", lease, wait=elapsed() - asked_at)
            side = self._fence.exclusive if mode is LockMode.EXCLUSIVE else self._fence.shared
            with side(token=lease.token, timeout_seconds=PATIENCE_SECONDS):
                self._stay(lease)
        finally:
            lease.release()

    def _stay(self, lease: Lease) -> None:
        """Work under the lock: a writer changes the resource, a reader relies on it not to change."""
        self._checked("entered", lease)
        try:
            if lease.mode is LockMode.EXCLUSIVE:
                self._resource.write_text(lease.owner)
            content = self._resource.read_text()
            for _ in range(self._random.randint(1, 20)):
                time.sleep(self._random.uniform(0, 0.004))
                self._checked("checked", lease)
            if self._resource.read_text() != content:
                self._note("torn", lease)
        finally:
            self._note("left", lease)

    def _checked(self, what: str, lease: Lease) -> None:
        """A check that passes proves the lease for the moment before it."""
        now = elapsed()
        lease.check()
        self._note(what, lease, at=now)

    def _note(self, what: str, lease: Lease | None = None, *, at: float | None = None, wait: float = 0.0) -> None:
        note = {"what": what, "at": elapsed() if at is None else at, "wait": wait}
        if lease is not None:
            note |= {"owner": lease.owner, "mode": lease.mode.value, "token": lease.token}
        os.write(self._log, json.dumps(note).encode() + b"\n")


_ERRORS: dict[type[ProvisionerError], str] = {
    LeaseLost: "lease lost or refused",
    LockTimeout: "timed out",
    StateUnavailable: "redis unavailable",
}


def read_log(path: Path, *, died_at: float, history: History) -> None:
    """Add what one process wrote down; `died_at` is when it was killed, before which it had left nothing."""
    times: dict[tuple[str, str, int], dict[str, float]] = {}
    for line in path.read_text().splitlines():
        note = json.loads(line)
        history.events[note["what"]] += 1
        if note["what"] == "granted":
            history.waits.append(note["wait"])
        if "owner" in note:
            times.setdefault((note["owner"], note["mode"], note["token"]), {})[note["what"]] = note["at"]
    for (owner, mode, token), at in times.items():
        if "entered" in at:
            proven_until = at.get("checked", at["entered"])
            holder = {"owner": owner, "mode": mode, "token": token}
            history.leases.append(Use(**holder, start=at["granted"], end=proven_until))
            history.entries.append(Use(**holder, start=at["entered"], end=at.get("left", died_at)))


# Those who do them harm.


class Storm:
    """Runs the processes and lets one thing after another go wrong: at random, and each of `LOSSES` once for sure."""

    def __init__(self, server: RedisServer, proxies: Sequence[Proxy], directory: Path, *, seed: int) -> None:
        self.history = History()
        self._server = server
        self._proxies = proxies
        self._directory = directory
        self._random = random.Random(seed)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._died_at: dict[int, float] = {}
        self._pending: list[tuple[float, Callable[[], None]]] = []
        self._faults: dict[str, tuple[int, Callable[[], None]]] = {
            "process killed": (12, self._kill),
            "process paused": (20, self._pause),
            "replies dropped": (8, self._drop_replies),
            "connections cut": (6, self._cut),
            _FLUSHED: (1, self._flush),
            _RESTARTED: (1, self._restart),
            _SET_BACK: (1, self._restart_from_copy),
            "redis paused": (1, self._pause_redis),
        }
        # A restart leaves the copy that a later one goes back to.
        self._sure = [_SET_BACK, *self._random.sample([_FLUSHED, _RESTARTED], 2)]

    def run(self, seconds: float) -> History:
        """Let it rage, then kill everybody and return what they had written down."""
        (self._directory / "resource").touch()
        until = elapsed() + seconds
        try:
            for proxy in self._proxies:
                self._spawn(proxy)
            while elapsed() < until:
                time.sleep(self._random.uniform(0.05, 0.7))
                self._do_due()
                self._do_harm()
        finally:
            self._end()
        for path in self._directory.glob("*.log"):
            if path.stem in map(str, self._died_at):
                read_log(path, died_at=self._died_at[int(path.stem)], history=self.history)
        return self.history

    def _do_harm(self) -> None:
        fault = self._next_fault()
        self.history.faults[fault] += 1
        self._faults[fault][1]()

    def _next_fault(self) -> str:
        if self._sure and self.history.faults.total() % _DRAWS_PER_LOSS == _DRAWS_PER_LOSS - 1:
            return self._sure.pop()
        weights = [weight for weight, _ in self._faults.values()]
        (fault,) = self._random.choices(list(self._faults), weights)
        return _RESTARTED if fault == _SET_BACK and not self._copy_dir.exists() else fault

    def _do_due(self) -> None:
        now = elapsed()
        due = [act for at, act in self._pending if at <= now]
        self._pending = [(at, act) for at, act in self._pending if at > now]
        for act in due:
            act()

    def _later(self, shortest: float, longest: float, act: Callable[[], None]) -> None:
        self._pending.append((elapsed() + self._random.uniform(shortest, longest), act))

    def _spawn(self, proxy: Proxy) -> None:
        command = [sys.executable, "-m", __name__, str(proxy.port), str(self._directory)]
        with (self._directory / "stderr").open("ab") as stderr:
            self._processes.append(subprocess.Popen(command, cwd=REPOSITORY_DIR, stderr=stderr))

    def _victim(self) -> subprocess.Popen[bytes]:
        """Choose one of the processes; half of the time one that holds the lock, if there is any."""
        with self._server.client() as client:
            owners = [party.owner for party in ReadWriteLock(client, NAME).snapshot().holders]
        holding = [process for process in self._processes if any(f":{process.pid}:" in owner for owner in owners)]
        return self._random.choice(holding if holding and self._random.random() < 0.5 else self._processes)

    def _kill(self) -> None:
        process = self._victim()
        self._processes.remove(process)
        self._bury(process)
        self._spawn(self._random.choice(self._proxies))

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        self._died_at[process.pid] = elapsed()
        self.history.events["crashed"] += process.poll() is not None
        process.kill()
        process.wait()

    def _pause(self) -> None:
        process = self._victim()
        process.send_signal(signal.SIGSTOP)
        self._later(0.2 * LEASE_SECONDS, 2.5 * LEASE_SECONDS, lambda: process.send_signal(signal.SIGCONT))

    def _drop_replies(self) -> None:
        proxy = self._random.choice(self._proxies)
        proxy.drops_replies = True
        self._later(0.1, 1.0, lambda: setattr(proxy, "drops_replies", False))

    def _cut(self) -> None:
        self._random.choice(self._proxies).cut()

    def _flush(self) -> None:
        with self._losing(), self._server.client() as client:
            client.flushall()

    def _restart(self) -> None:
        with self._losing():
            self._random.choice([self._server.kill, self._server.stop])()
            self._keep_copy()
            self._server.start()

    def _restart_from_copy(self) -> None:
        with self._losing():
            self._server.kill()
            shutil.rmtree(self._data_dir)
            shutil.copytree(self._copy_dir, self._data_dir)
            self._server.start()

    @property
    def _data_dir(self) -> Path:
        return self._server.directory / "appendonlydir"

    @property
    def _copy_dir(self) -> Path:
        return self._server.directory / "copy"

    def _keep_copy(self) -> None:
        shutil.rmtree(self._copy_dir, ignore_errors=True)
        shutil.copytree(self._data_dir, self._copy_dir)

    def _pause_redis(self) -> None:
        self._server.pause()
        time.sleep(self._random.uniform(0.1, 1.5 * LEASE_SECONDS))
        self._server.resume()

    @contextmanager
    def _losing(self) -> Iterator[None]:
        start = elapsed()
        yield
        self.history.losses.append((start, elapsed()))

    def _end(self) -> None:
        for process in self._processes:
            self._bury(process)


def run_history(directory: Path, *, kind: Kind, processes: int, seconds: float, seed: int) -> History:
    """Run `processes` for `seconds`, each behind a proxy of its own, against one server with a log on disk."""
    (directory / "redis").mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(redis_server(directory / "redis", kind=kind, appendonly=True))
        proxies = [stack.enter_context(proxy_to(server.port)) for _ in range(processes)]
        return Storm(server, proxies, directory, seed=seed).run(seconds)


if __name__ == "__main__":
    Worker(int(sys.argv[1]), Path(sys.argv[2])).run()
