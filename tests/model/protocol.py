# SPDX-License-Identifier: Apache-2.0
"""Every way that lock, fence, provision, destroy, pull and prune can interleave, at a small bound.

One layer, a few processes that each own a container or prune. A step is what one process does without anybody coming
between: one script of the lock, one file written, renamed or mounted. Between two steps a process may be delayed for
any time, so a pause needs no step of its own; what it brings about does: the end of a lease.

`explore` visits every state that can be reached and returns the shortest way to one in which a container's layer is
gone, or None. Leases, tokens and the fence are as in `worker.lock` and `worker.store.fence`; fairness is left out, so
whoever can be granted the lock may be. So are an old copy of Redis, which loses all or nothing here, and prune's survey
before the lock: it looks and plans in one step under it. Tokens are compared only, so they are replaced by their ranks
and the states are finitely many.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What is in the model.

    Attributes:
        containers: Processes that provision and destroy, each its own container, again and again.
        pruners: Processes that prune again and again.
        has_flock: Whether what must not overlap also holds the store's flock.
        has_tokens: Whether the store refuses tokens that are too old.
        unmounts_first: Whether destroy takes down the rootfs before it drops the ref.
        has_pauses: Whether a process may be stopped for longer than its lease.
        has_crashes: Whether a process may be killed anywhere; it begins anew, its lease and files stay behind.
        has_losses: Whether Redis may forget everything, and the clock be set so that its token repeats.
        has_clock_steps: Whether the server's clock may be set ahead: a lease lapses that its holder counts on.
    """

    containers: int = 2
    pruners: int = 1
    has_flock: bool = True
    has_tokens: bool = True
    unmounts_first: bool = True
    has_pauses: bool = True
    has_crashes: bool = True
    has_losses: bool = True
    has_clock_steps: bool = True


class Process(NamedTuple):
    """One process.

    Attributes:
        at: Which step is next.
        token: Of its latest grant.
        holds: Whether Redis says that it holds the lock.
        believes: Whether its own clock says so: `Lease.check` passes. Of no account once it was checked.
        is_mounted: Whether its container uses the layer.
        is_pinned: Whether its container has a ref on disk.
    """

    at: str = "idle"
    token: int = 0
    holds: bool = False
    believes: bool = False
    is_mounted: bool = False
    is_pinned: bool = False


class State(NamedTuple):
    """Everything.

    Attributes:
        processes: Those with containers first.
        is_present: Whether the layer is in the store.
        token: The last that Redis issued.
        phase: Mode of the latest grant, or empty.
        is_quarantined: Whether Redis grants nothing exclusively.
        ghosts: Modes of leases whose processes were killed.
        seen: The highest token the store has admitted.
        written: The highest it has admitted exclusively.
    """

    processes: tuple[Process, ...]
    is_present: bool = True
    token: int = 0
    phase: str = ""
    is_quarantined: bool = False
    ghosts: frozenset[str] = frozenset()
    seen: int = 0
    written: int = 0


Step = tuple[str, State]

# Where a process stands inside the fence.
_INSIDE = frozenset({"inside", "checked", "pinned", "looked", "unmounted", "dropped", "planned", "done", "fetch"})

# Where it has yet to show its token.
_SHOWS_TOKEN = frozenset({"granted"})


class Protocol:
    """The steps from a state."""

    def __init__(self, bound: Bound) -> None:
        self.bound = bound
        self.start = State(tuple(Process() for _ in range(bound.containers + bound.pruners)))

    def mode(self, index: int) -> str:
        """Return how the process takes the lock."""
        return "shared" if index < self.bound.containers else "exclusive"

    def is_safe(self, state: State) -> bool:
        """Whether no layer in use was removed."""
        return state.is_present or not any(process.is_mounted for process in state.processes)

    def steps(self, state: State) -> Iterator[Step]:
        """Yield what can happen next, with its name."""
        for index in range(len(state.processes)):
            yield from self._work(state, index)
            yield from self._misfortune(state, index)
        yield from self._redis_misfortune(state)

    def _work(self, state: State, index: int) -> Iterator[Step]:
        name = f"{'prune' if self.mode(index) == 'exclusive' else 'container'} {index}"
        for what, after in getattr(self, f"_at_{state.processes[index].at}")(state, index):
            yield f"{name} {what}", after

    # The lock.

    def _at_idle(self, state: State, index: int) -> Iterator[Step]:
        mode = self.mode(index)
        holders = {self.mode(other) for other, process in enumerate(state.processes) if process.holds}
        in_the_way = (holders | state.ghosts) - ({"shared"} if mode == "shared" else set())
        if in_the_way or (mode == "exclusive" and state.is_quarantined):
            return
        token = state.token
        if mode == "exclusive" or state.phase != "shared" or token < state.seen:
            token = max(token, state.seen) + 1
        granted = state._replace(token=token, phase=mode)
        yield f"is granted {mode} use", self._set(granted, index, at="granted", token=token, holds=True, believes=True)

    _at_pulled = _at_idle

    # The fence.

    def _at_granted(self, state: State, index: int) -> Iterator[Step]:
        mode, token = self.mode(index), state.processes[index].token
        if self.bound.has_flock and self._flocks(state) - ({"shared"} if mode == "shared" else set()):
            return
        too_old = state.written if mode == "shared" else state.seen
        if self.bound.has_tokens and token < too_old:
            yield "is refused for its old token", self._give_up(state, index)
            return
        written = max(state.written, token) if mode == "exclusive" else state.written
        admitted = state._replace(seen=max(state.seen, token), written=written)
        yield "enters the fence", self._set(admitted, index, at="inside")

    def _at_inside(self, state: State, index: int) -> Iterator[Step]:
        if not state.processes[index].believes:
            yield "finds its lease over and leaves", self._give_up(state, index)
            return
        # What comes after the check may come after any pause.
        yield "checks its lease", self._set(state, index, at="checked", believes=not self.bound.has_pauses)

    def _at_done(self, state: State, index: int) -> Iterator[Step]:
        yield "leaves the fence and releases the lock", self._give_up(state, index)

    def _give_up(self, state: State, index: int) -> State:
        return self._set(state, index, at="idle", holds=False, believes=False)

    def _flocks(self, state: State) -> set[str]:
        return {self.mode(index) for index, process in enumerate(state.processes) if process.at in _INSIDE}

    # The verbs.

    def _at_checked(self, state: State, index: int) -> Iterator[Step]:
        process = state.processes[index]
        if self.mode(index) == "exclusive":
            is_kept = any(other.is_pinned for other in state.processes)
            yield (
                f"plans to {'keep' if is_kept else 'remove'} the layer",
                self._set(state, index, at="done" if is_kept else "planned"),
            )
        elif process.is_mounted and self.bound.unmounts_first:
            yield "unmounts", self._set(state, index, at="unmounted", is_mounted=False)
        elif process.is_mounted:
            yield "drops its ref", self._set(state, index, at="dropped", is_pinned=False)
        else:
            yield "writes its ref", self._set(state, index, at="pinned", is_pinned=True)

    def _at_planned(self, state: State, index: int) -> Iterator[Step]:
        yield "removes the layer", self._set(state._replace(is_present=False), index, at="done")

    def _at_pinned(self, state: State, index: int) -> Iterator[Step]:
        found = "finds the layer" if state.is_present else "misses the layer"
        yield found, self._set(state, index, at="looked" if state.is_present else "fetch")

    def _at_looked(self, state: State, index: int) -> Iterator[Step]:
        yield "mounts", self._set(state, index, at="done", is_mounted=True)

    def _at_unmounted(self, state: State, index: int) -> Iterator[Step]:
        yield "drops its ref", self._set(state, index, at="done", is_pinned=False)

    def _at_dropped(self, state: State, index: int) -> Iterator[Step]:
        yield "unmounts", self._set(state, index, at="done", is_mounted=False)

    def _at_fetch(self, state: State, index: int) -> Iterator[Step]:
        yield (
            "leaves the fence and the lock to pull",
            self._set(state, index, at="pulling", holds=False, believes=False),
        )

    def _at_pulling(self, state: State, index: int) -> Iterator[Step]:
        yield "commits the layer", self._set(state._replace(is_present=True), index, at="pulled")

    # What goes wrong.

    def _misfortune(self, state: State, index: int) -> Iterator[Step]:
        process = state.processes[index]
        if self.bound.has_pauses and process.believes:
            yield f"process {index} reaches its own deadline", self._set(state, index, believes=False)
        if process.holds and (not process.believes or self.bound.has_clock_steps):
            yield f"redis lets the lease of process {index} lapse", self._set(state, index, holds=False)
        if self.bound.has_crashes and process.at != "idle":
            ghosts = state.ghosts | ({self.mode(index)} if process.holds else set())
            left = self._set(state, index, at="idle", holds=False, believes=False, token=0)
            yield f"process {index} is killed", left._replace(ghosts=ghosts)

    def _redis_misfortune(self, state: State) -> Iterator[Step]:
        for mode in state.ghosts:
            yield f"redis lets the {mode} lease of a killed process lapse", state._replace(ghosts=state.ghosts - {mode})
        if self.bound.has_losses:
            forgetful = tuple(process._replace(holds=False) for process in state.processes)
            # No store has seen a token: nobody was in it under the lock, and there is nothing to wait for.
            lost = State(forgetful, state.is_present, is_quarantined=state.seen > 0)
            yield "redis loses its data", lost._replace(seen=state.seen, written=state.written)
        may_end = self.bound.has_clock_steps or not any(process.believes for process in state.processes)
        if state.is_quarantined and may_end:
            yield "the quarantine ends", state._replace(is_quarantined=False)

    def ranked(self, state: State) -> State:
        """Replace tokens by their ranks, forget those that nobody will show again, order what is alike."""
        processes = [
            process if process.at in _SHOWS_TOKEN else process._replace(token=0) for process in state.processes
        ]
        tokens = {0, state.token, state.seen, state.written, *(process.token for process in processes)}
        rank = {token: number for number, token in enumerate(sorted(tokens))}
        ranked = [process._replace(token=rank[process.token]) for process in processes]
        containers = self.bound.containers
        return state._replace(
            processes=(*sorted(ranked[:containers]), *sorted(ranked[containers:])),
            token=rank[state.token],
            seen=rank[state.seen],
            written=rank[state.written],
        )

    def _set(self, state: State, index: int, **changes: Any) -> State:
        processes = list(state.processes)
        processes[index] = processes[index]._replace(**changes)
        return state._replace(processes=tuple(processes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was found.

    Attributes:
        states: How many there are, or were seen until one was unsafe.
        counterexample: The shortest way to an unsafe state, or None.
    """

    states: int
    counterexample: tuple[str, ...] | None


def explore(bound: Bound) -> Result:
    """Visit every reachable state, nearest first. Cost: proportional to states and steps between them."""
    protocol = Protocol(bound)
    came_from: dict[State, tuple[State, str] | None] = {protocol.start: None}
    frontier = [protocol.start]
    while frontier:
        discovered = []
        for state in frontier:
            for name, after in protocol.steps(state):
                ranked = protocol.ranked(after)
                if ranked in came_from:
                    continue
                came_from[ranked] = (state, name)
                if not protocol.is_safe(ranked):
                    return Result(states=len(came_from), counterexample=_way_to(ranked, came_from))
                discovered.append(ranked)
        frontier = discovered
    return Result(states=len(came_from), counterexample=None)


def _way_to(state: State, came_from: dict[State, tuple[State, str] | None]) -> tuple[str, ...]:
    names = []
    while (origin := came_from[state]) is not None:
        state, name = origin
        names.append(name)
    return tuple(reversed(names))
