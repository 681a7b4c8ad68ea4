# SPDX-License-Identifier: Apache-2.0
"""What judges the queue under fire, given small histories."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.chaos.queue_ledger import Fault, Ledger, Sent

WORKER, OTHER = 100, 200


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger whose scheduler has sent task 1 at the very beginning."""
    made = Ledger(tmp_path / "ledger")
    made.sent[1] = Sent(number=1, at=0.0, until=0.0)
    yield made
    made.close()


def write(ledger: Ledger, *lines: str) -> None:
    """Note what tasks note."""
    with ledger.path.open("a", encoding="ascii") as file:
        file.writelines(f"{line}\n" for line in lines)
    ledger.read()


def test_a_task_that_began_and_never_ended_is_lost(ledger: Ledger) -> None:
    """Only what is done counts."""
    write(ledger, f"begun 1 50 {WORKER} 101")

    assert ledger.verdict().lost == 1


def test_a_task_that_was_put_off_and_done_later_was_begun_once(ledger: Ledger) -> None:
    """A retry is no double."""
    write(
        ledger,
        f"begun 1 50 {WORKER} 101",
        f"put-off 1 51 {WORKER} 101",
        f"begun 1 52 {OTHER} 201",
        f"done 1 53 {OTHER} 201",
    )

    verdict = ledger.verdict()

    assert (verdict.lost, verdict.executions, verdict.begun_twice, verdict.done_twice) == (0, 2, 0, 0)


def test_a_task_done_twice_with_nothing_done_to_anybody_has_no_excuse(ledger: Ledger) -> None:
    """The queue handed it out again, or to two at once."""
    write(
        ledger,
        f"begun 1 50 {WORKER} 101",
        f"begun 1 55 {OTHER} 201",
        f"done 1 62 {WORKER} 101",
        f"done 1 67 {OTHER} 201",
    )

    verdict = ledger.verdict()

    assert (verdict.done_twice, verdict.done_twice_unexcused) == (1, 1)
    assert (verdict.beside, verdict.beside_unexcused) == (1, 1)


def test_a_paused_worker_excuses_that_its_task_is_run_beside_it(ledger: Ledger) -> None:
    """Nobody can tell it from a dead one."""
    write(
        ledger,
        f"begun 1 50 {WORKER} 101",
        f"begun 1 56 {OTHER} 201",
        f"done 1 60 {WORKER} 101",
        f"done 1 62 {OTHER} 201",
    )
    ledger.faults.append(Fault(kind="worker paused", worker=WORKER, at=51.0, until=60.0))

    verdict = ledger.verdict()

    assert (verdict.beside, verdict.beside_unexcused, verdict.done_twice_unexcused) == (1, 0, 0)
    assert verdict.recoveries == {"worker paused": [5.0]}


def test_a_paused_worker_that_puts_a_task_off_excuses_both_its_successors(ledger: Ledger) -> None:
    """It publishes the task anew when it goes on, and so has done the one that took it over."""
    write(
        ledger,
        f"begun 1 50 {WORKER} 101",
        f"begun 1 56 {OTHER} 201",
        f"put-off 1 57 {OTHER} 201",
        f"put-off 1 60 {WORKER} 101",
        "begun 1 61 300 301",
        "done 1 62 300 301",
        "begun 1 63 300 302",
        "done 1 64 300 302",
    )
    ledger.faults.append(Fault(kind="worker paused", worker=WORKER, at=51.0, until=60.0))

    assert ledger.verdict().done_twice_unexcused == 0


def test_an_orderly_end_and_harm_to_others_excuse_nothing(ledger: Ledger) -> None:
    """A worker told to end finishes or hands back."""
    write(
        ledger,
        f"begun 1 50 {WORKER} 101",
        f"done 1 51 {WORKER} 101",
        f"begun 1 52 {OTHER} 201",
        f"done 1 53 {OTHER} 201",
    )
    ledger.faults += [
        Fault(kind="worker told to end", worker=WORKER, at=50.5, until=50.5, is_excuse=False),
        Fault(kind="worker killed", worker=300, at=50.5, until=50.5),
    ]

    assert ledger.verdict().done_twice_unexcused == 1


def test_a_scheduler_that_may_have_sent_twice_excuses_two_runs(ledger: Ledger) -> None:
    """While Redis is away it does not learn whether its message arrived, and sends again."""
    write(
        ledger,
        f"begun 1 50 {WORKER} 101",
        f"done 1 51 {WORKER} 101",
        f"begun 1 52 {OTHER} 201",
        f"done 1 53 {OTHER} 201",
    )
    ledger.sent[1] = Sent(number=1, at=8.0, until=20.0)
    ledger.faults.append(Fault(kind="Redis killed", worker=None, at=10.0, until=11.0))

    assert ledger.verdict().done_twice_unexcused == 0


def test_a_killed_process_recovers_when_its_own_task_begins_again(ledger: Ledger) -> None:
    """What runs in another process of the same worker goes on."""
    ledger.sent[2] = Sent(number=2, at=0.0, until=0.0)
    write(
        ledger,
        f"begun 1 50 {WORKER} 101",
        f"begun 2 50 {WORKER} 102",
        f"begun 1 53 {OTHER} 201",
        f"done 1 54 {OTHER} 201",
        f"done 2 60 {WORKER} 102",
    )
    ledger.faults.append(Fault(kind="pool process killed", worker=WORKER, process=101, at=51.0, until=51.0))

    verdict = ledger.verdict()

    assert verdict.recoveries == {"pool process killed": [2.0]}
    assert (verdict.begun_twice, verdict.done_twice) == (1, 0)
