# SPDX-License-Identifier: Apache-2.0
"""The lock's transitions in plain Python, to compare the scripts with: one list of parties in order of arrival."""

import math
from dataclasses import dataclass, field


@dataclass(slots=True)
class Party:
    """One owner that holds or waits; times in ms of the server's clock."""

    owner: str
    mode: str
    holds: bool
    deadline: float
    cap: float = math.inf


@dataclass(slots=True)
class Model:
    """A lock, and the server's clock and run, which are set from outside."""

    now_us: int = 1_800_000_000_000_000
    run: int = 1
    lease: int = 0
    token: int = 0
    phase: str = ""
    known_run: int | None = None
    quarantine: int = 0
    parties: list[Party] = field(default_factory=list)
    released: dict[str, int] = field(default_factory=dict)
    bells: set[str] = field(default_factory=set)

    @property
    def now(self) -> int:
        """The server's clock in ms."""
        return self.now_us // 1000

    def acquire(self, owner: str, mode: str, lease: int, floor: int | None) -> tuple[str, int]:
        """Return the outcome and the token."""
        if owner in self.released:
            return "released", 0
        has_changed = self._settle(lease, floor)
        party = self.find(owner)
        if party is not None and party.holds:
            self._extend(party, lease)
            return "granted", self.token
        if party is None:
            party = Party(owner, mode, holds=False, deadline=0)
            self.parties.append(party)
        party.holds = not self._obstacles(party)
        party.deadline = self.now + (lease if party.holds else math.ceil(lease * 2 / 3))
        if party.holds:
            self.bells.discard(owner)
            self.parties.remove(party)  # Who holds stands nowhere in the queue.
            self.parties.insert(0, party)
        if has_changed:
            self._wake()
        return ("granted", self._issue(mode, floor)) if party.holds else ("waiting", 0)

    def release(self, owner: str, lease: int) -> str:
        """Return what the owner was."""
        was_released = owner in self.released and self.released[owner] > self.now
        self._settle(lease, None)
        party = self.find(owner)
        if party is not None:
            self.parties.remove(party)
        self.bells.discard(owner)
        self.released[owner] = self.now + lease
        self._wake()
        if party is None:
            return "already" if was_released else "lost"
        return "released" if party.holds else "withdrawn"

    def renew(self, owners: list[str], lease: int) -> list[int]:
        """Return the ms each owner has left."""
        has_changed = self._settle(lease, None)
        left = []
        for owner in owners:
            party = self.find(owner)
            left.append(self._extend(party, lease) if party is not None and party.holds else 0)
        if has_changed:
            self._wake()
        return left

    def shorten(self, owner: str, ms: int) -> int:
        """Return the ms to the lease's end, -1 if there is none."""
        party = self.find(owner)
        if party is None or not party.holds or party.deadline <= self.now:
            return -1
        party.cap = max(party.deadline, self.now + ms)
        return int(party.cap - self.now)

    def forget(self) -> None:
        """Lose everything, as FLUSHALL does."""
        fresh = Model(now_us=self.now_us, run=self.run)
        for name in self.__slots__:
            setattr(self, name, getattr(fresh, name))

    def find(self, owner: str) -> Party | None:
        """Return the owner's party."""
        return next((party for party in self.parties if party.owner == owner), None)

    def holders(self) -> list[Party]:
        """Return who holds and has not lapsed."""
        return [party for party in self.parties if party.holds and party.deadline > self.now]

    def turn(self) -> list[Party]:
        """Return the waiters that would be granted if they asked now, apart from the bells they wait for."""
        waiting = [party for party in self.parties if not party.holds]
        if any(party.holds and party.mode == "exclusive" for party in self.parties):
            return []
        if self.now < self.quarantine:
            return [party for party in waiting if party.mode == "shared"]
        readers = []
        for party in waiting:
            if party.mode == "exclusive":
                is_first = not readers and not any(other.holds for other in self.parties)
                return [party] if is_first else readers
            readers.append(party)
        return readers

    def _obstacles(self, party: Party) -> bool:
        ahead = self.parties[: self.parties.index(party)]
        writer_holds = any(other.holds and other.mode == "exclusive" for other in ahead)
        if party.mode == "exclusive":
            return self.now < self.quarantine or bool(ahead)
        return writer_holds or (self.now >= self.quarantine and any(other.mode == "exclusive" for other in ahead))

    def _settle(self, lease: int, floor: int | None) -> bool:
        """Notice another run, forget who is past its time; return whether there was anybody."""
        self.lease = max(self.lease, lease)
        if self.known_run != self.run:
            is_untouched = self.known_run is None and floor == 0
            self.quarantine = 0 if is_untouched else self.now + self.lease
            self.known_run = self.run
            self.phase = ""
        self.quarantine = min(self.quarantine, self.now + self.lease)
        dead = [party for party in self.parties if party.deadline <= self.now]
        for party in dead:
            self.parties.remove(party)
            self.bells.discard(party.owner)
        for party in self.parties:
            party.deadline = min(party.deadline, self.now + self.lease)
        self.released = {owner: until for owner, until in self.released.items() if until > self.now}
        return bool(dead)

    def _extend(self, party: Party, lease: int) -> int:
        party.deadline = min(self.now + lease, party.cap)
        return int(max(0, party.deadline - self.now))

    def _issue(self, mode: str, floor: int | None) -> int:
        seen = max(self.token, floor or 0)
        if mode == "exclusive" or self.phase != "shared" or self.token < seen:
            self.token, self.phase = max(seen + 1, self.now_us), mode
        return self.token

    def _wake(self) -> None:
        for party in self.turn():
            if party.owner not in self.bells:
                self.bells.add(party.owner)
                party.deadline = min(party.deadline, self.now + math.ceil(self.lease / 3))
