# SPDX-License-Identifier: Apache-2.0
"""Observations of children reach the process that counts, whatever becomes of the children."""

import os
import signal
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.ports import wait_until
from worker.metrics.recorder import Recorder
from worker.observer import Metric, Observation

HIT = Observation(Metric.IMAGE_LOOKUPS, labels=("hit",))
BYTES = Observation(Metric.FETCHED_BYTES, 2.5)


@contextmanager
def recorder(add: Callable[[Observation], None]) -> Iterator[Recorder]:
    """A recorder of this process."""
    made = Recorder(add)
    try:
        yield made
    finally:
        made.close()


def in_child(act: Callable[[], None]) -> int:
    """Run it in a forked child; return how that ended."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


def test_this_process_counts_at_once() -> None:
    """No detour: who scrapes next sees it."""
    seen: list[Observation] = []
    with recorder(seen.append) as made:
        made.observe(HIT)

        assert seen == [HIT]


def test_a_childs_observations_arrive_as_they_were_made() -> None:
    """Value, labels and order."""
    seen: list[Observation] = []
    with recorder(seen.append) as made:
        in_child(lambda: [made.observe(each) for each in (HIT, BYTES, HIT)] and None)

        wait_until(lambda: len(seen) == 3, "arrival")
    assert seen == [HIT, BYTES, HIT]


def test_what_a_killed_child_sent_is_counted() -> None:
    """And its death disturbs nobody else's."""
    seen: list[Observation] = []

    def send_and_die() -> None:
        for _ in range(100):
            made.observe(HIT)
        os.kill(os.getpid(), signal.SIGKILL)

    with recorder(seen.append) as made:
        assert os.WTERMSIG(in_child(send_and_die)) == signal.SIGKILL
        in_child(lambda: made.observe(BYTES))

        wait_until(lambda: len(seen) == 101, "arrival")
    assert Counter(seen) == {HIT: 100, BYTES: 1}


def test_a_child_never_waits_and_what_is_lost_is_counted() -> None:
    """The main process is stuck while a child observes more than the queue holds; afterwards all add up."""
    go_on, seen = threading.Event(), []

    def add_slowly(observation: Observation) -> None:
        assert go_on.wait(60)
        seen.append(observation)

    def overfill() -> None:
        for _ in range(5000):
            made.observe(HIT)
        go_on_in_parent(b"x")
        for _ in range(5000):
            # Until the queue has room again.
            made.observe(HIT)
            if not made._lost:
                return
            threading.Event().wait(0.01)

    read, write = os.pipe()

    def go_on_in_parent(byte: bytes) -> None:
        os.write(write, byte)

    def release() -> None:
        os.read(read, 1)
        go_on.set()

    waiter = threading.Thread(target=release)
    with recorder(add_slowly) as made:
        waiter.start()
        in_child(overfill)
        waiter.join()
    os.close(read)
    os.close(write)

    lost = sum(each.value for each in seen if each.metric is Metric.LOST_OBSERVATIONS)
    assert lost > 0
    assert sum(1 for each in seen if each == HIT) + lost > 5000


def test_without_a_main_process_a_child_goes_on() -> None:
    """Its work is not held up because nobody counts any more."""
    made = Recorder(lambda _: None)
    made.close()

    assert in_child(lambda: made.observe(HIT)) == 0


def test_nonsense_is_logged_and_counted_by_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The thread that receives goes on."""
    seen: list[Observation] = []
    with recorder(seen.append) as made:
        made._writer.send(b'["no such metric", 1, []]')
        made._writer.send(b"no JSON")
        in_child(lambda: made.observe(HIT))

        wait_until(lambda: len(seen) == 1, "arrival")
    assert seen == [HIT]
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 2
