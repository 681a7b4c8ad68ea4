# SPDX-License-Identifier: Apache-2.0
"""The scripts against the model: any order of calls, repeated calls, clock steps, lost data, replaced servers.

What is promised beyond agreement with the model is checked from the clients' side, where the server's clock is unknown:
what a client believes to hold, by a clock that never steps, from what it was told.
"""

import copy
from dataclasses import dataclass

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from tests.unit.lock.conftest import NAME
from tests.unit.lock.model import Model
from worker.lua import load

pytestmark = pytest.mark.redis

LEASE = 30_000
MODES = st.sampled_from(["shared", "exclusive"])
TIMES = st.integers(1, 2)  # Twice: the reply was lost and the client sent the command again.
TEST_SERVER = """#!lua flags=allow-oom
local function server_us() return tonumber(redis.call('GET', KEYS[1] .. ':test:now')) end
local function server_run() return redis.call('GET', KEYS[1] .. ':test:run') end
"""


@dataclass(frozen=True, slots=True)
class Belief:
    """What a client was told: it holds until `deadline` of its own clock."""

    owner: str
    mode: str
    token: int
    deadline: int


class Clients(RuleBasedStateMachine):
    """Clients of one lock on a server that stays what it is."""

    owners = Bundle("owners")

    def __init__(self, client: redis.Redis) -> None:
        super().__init__()
        client.flushdb()
        self.client = client
        self.model = Model()
        self.elapsed = 0  # The clients' clock, ms.
        self.modes: dict[str, str] = {}
        self.tokens: dict[str, int] = {}
        self.beliefs: dict[str, Belief] = {}
        self.seen = 0  # The highest token the guarded resource was shown.
        self.was_set_ahead = self.was_set_back = False
        self.copy: tuple[Model, dict[bytes, bytes]] | None = None
        self.scripts = {
            name: client.register_script(TEST_SERVER + load("lock_common") + load(f"lock_{name}"))
            for name in ("acquire", "release", "renew", "shorten", "view")
        }
        self._set_server()
        self.modes["first"] = "shared"
        self._acquire("first", times=1, knows_floor=True)

    @rule(target=owners, mode=MODES, times=TIMES, knows_floor=st.booleans())
    def ask(self, mode: str, times: int, knows_floor: bool) -> str:
        """A new client asks."""
        owner = f"{mode}-{len(self.modes)}"
        self.modes[owner] = mode
        self._acquire(owner, times=times, knows_floor=knows_floor)
        return owner

    @rule(owner=owners, times=TIMES, knows_floor=st.booleans())
    def ask_again(self, owner: str, times: int, knows_floor: bool) -> None:
        """A client asks again: a safety re-check, or an echo of a request long since answered."""
        self._acquire(owner, times=times, knows_floor=knows_floor)

    @rule(times=TIMES)
    def answer_bells(self, times: int) -> None:
        """All that were rung ask again, in any order the server met them."""
        for owner in sorted(self.model.bells):
            self.client.delete(f"{NAME}:bell:{owner}")
            self.model.bells.discard(owner)
            self._acquire(owner, times=times, knows_floor=True)

    @rule(owner=consumes(owners), times=TIMES)
    def release(self, owner: str, times: int) -> None:
        """A client releases or gives up; its next echo may still arrive, so it is kept aside, not forgotten."""
        self.beliefs.pop(owner, None)
        for _ in range(times):
            assert self._call("release", owner, LEASE).decode() == self.model.release(owner, LEASE)
        assert {party.owner for party in self.model.turn()} <= self._bells()
        for _ in range(times - 1):
            assert self._call("acquire", owner, self.modes[owner], LEASE, "")[0] == b"released"

    @rule(times=TIMES)
    def renew_all(self, times: int) -> None:
        """The renewer renews whatever its clients believe to hold."""
        owners = [owner for owner, belief in self.beliefs.items() if belief.deadline > self.elapsed]
        for _ in range(times):
            pairs = [part for owner in owners for part in (self.modes[owner], owner)]
            left = self._call("renew", LEASE, *pairs)
            assert left == self.model.renew(owners, LEASE)
            for owner, ms in zip(owners, left, strict=True):
                self._believe(owner, self.tokens[owner], ms)

    @rule(owner=owners, ms=st.integers(0, 2 * LEASE), times=TIMES)
    def shorten(self, owner: str, ms: int, times: int) -> None:
        """An operator caps a lease."""
        for _ in range(times):
            assert self._call("shorten", owner, ms) == self.model.shorten(owner, ms)

    @rule(ms=st.integers(1, LEASE // 3) | st.sampled_from([1, LEASE // 3, LEASE - 1, LEASE, 2 * LEASE]))
    def pass_time(self, ms: int) -> None:
        """Time passes for all clocks."""
        self.elapsed += ms
        self.model.now_us += ms * 1000
        self._set_server()

    @invariant()
    def view_agrees(self) -> None:
        """Who holds and who waits is as the model says."""
        view = self._call("view")
        holders, waiters = ([owner.decode() for owner in rows[::4]] for rows in view[2:])
        parties = [party for party in self.model.parties if party.deadline > self.model.now]
        assert sorted(holders) == sorted(party.owner for party in parties if party.holds)
        assert waiters == [party.owner for party in parties if not party.holds]
        assert self._bells() == self.model.bells

    @invariant()
    def writers_hold_alone(self) -> None:
        """At the server an exclusive holder has nobody beside it."""
        holders = self.model.holders()
        assert len(holders) < 2 or all(party.mode == "shared" for party in holders)

    def _acquire(self, owner: str, *, times: int, knows_floor: bool) -> None:
        floor = self.seen if knows_floor else None
        for _ in range(times):
            outcome, token, ms = self._call("acquire", owner, self.modes[owner], LEASE, "" if floor is None else floor)
            assert (outcome.decode(), int(token)) == self.model.acquire(owner, self.modes[owner], LEASE, floor)
            if outcome == b"granted":
                self.tokens[owner] = int(token)
                self._believe(owner, int(token), ms)
            elif outcome == b"waiting":
                assert 1 <= ms <= LEASE // 3
        if owner in self.beliefs:
            self.seen = max(self.seen, self.beliefs[owner].token)

    def _believe(self, owner: str, token: int, ms: int) -> None:
        """Note what a client was told, and check a new belief against what the others believe."""
        earlier = self.beliefs.pop(owner, None)
        if ms <= 0:
            return
        mine = self.beliefs[owner] = Belief(owner, self.modes[owner], token, self.elapsed + ms)
        if earlier is None or earlier.deadline <= self.elapsed:
            self._check_beside_others(mine)

    def _check_beside_others(self, mine: Belief) -> None:
        for other in self.beliefs.values():
            is_believed = other.owner != mine.owner and other.deadline > self.elapsed
            if is_believed and "exclusive" in {mine.mode, other.mode}:
                is_told_apart = mine.token > other.token
                assert is_told_apart or self.was_set_back, "the resource cannot tell the older from the newer"
                assert mine.mode == "shared" or self.was_set_ahead, "a writer beside somebody who believes to hold"

    def _bells(self) -> set[str]:
        prefix = f"{NAME}:bell:"
        return {key.decode().removeprefix(prefix) for key in self.client.keys(f"{prefix}*")}

    def _call(self, name: str, *arguments: str | int):  # noqa: ANN202 - as Redis answers
        self.model.now_us += 1  # Two scripts never run in the same microsecond.
        self._set_server()
        return self.scripts[name](keys=[NAME], args=arguments)

    def _set_server(self) -> None:
        self.client.mset({f"{NAME}:test:now": self.model.now_us, f"{NAME}:test:run": self.model.run})


class FailingServer(Clients):
    """The same while the server's clock is set, its data is lost, and it is replaced."""

    @rule(ms=st.integers(-3_600_000, 3_600_000))
    def step_clock(self, ms: int) -> None:
        """Somebody sets the server's clock."""
        self.was_set_ahead |= ms > 0
        self.was_set_back |= ms < 0
        self.model.now_us += ms * 1000
        self._set_server()

    @rule()
    def lose_everything(self) -> None:
        """FLUSHALL."""
        self.client.flushdb()
        self.model.forget()
        self._set_server()

    @rule()
    def keep_copy(self) -> None:
        """The server writes its data to disk."""
        keys = self.client.keys(f"{NAME}*")
        self.copy = copy.deepcopy(self.model), {key: self.client.dump(key) for key in keys}

    @rule(is_copy_old=st.booleans())
    def restart(self, is_copy_old: bool) -> None:
        """The server restarts or another takes over, with all it knew or with an old copy."""
        now_us, run = self.model.now_us, self.model.run + 1
        if is_copy_old and self.copy is not None:
            self.model = copy.deepcopy(self.copy[0])
            self.client.flushdb()
            for key, value in self.copy[1].items():
                self.client.restore(key, 0, value)
        self.model.now_us, self.model.run = now_us, run
        self._set_server()


@pytest.mark.parametrize("machine", [Clients, FailingServer])
def test_the_scripts_do_what_the_model_does(machine: type[Clients], redis_client: redis.Redis) -> None:
    """No sequence of calls, repetitions, clock steps and losses makes them differ or breaks a promise."""
    run_state_machine_as_test(
        lambda: machine(redis_client),
        settings=settings(
            max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_a_clock_set_back_does_not_lengthen_a_dead_holders_lease(redis_client: redis.Redis) -> None:
    """An hour back, a lease later the lock is free, not an hour later."""
    clients = FailingServer(redis_client)
    clients.step_clock(-3_600_000)
    writer = clients.ask("exclusive", 1, knows_floor=True)
    assert writer not in clients.beliefs

    clients.pass_time(LEASE)
    clients.ask_again(writer, 1, knows_floor=True)

    assert writer in clients.beliefs
