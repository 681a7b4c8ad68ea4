# SPDX-License-Identifier: Apache-2.0
"""Turns what happens to a verb, the lock, a pull and a removal into observations; the work itself stays as it is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from worker.errors import PermanentError, RemovalFailed, TeardownFailed, TransientError
from worker.lock import LockMode
from worker.observer import Metric, Observation, Observe, Outcome, Verb

Answer = TypeVar("Answer")

GRANTED, FAILED = "granted", "failed"
UNFORESEEN = "Unforeseen"
"""Stands for every class of exception that is not in the error tree: their names are nobody's closed set."""


def observed_verb(
    observe: Observe, verb: Verb, act: Callable[[], Answer], *, outcome_of: Callable[[Answer], Outcome]
) -> Answer:
    """Do it and tell how it ended, and how long it took if it was done. Raises what `act` raises."""
    started = time.monotonic()
    try:
        answer = act()
    except BaseException as error:
        outcome = _observe_error(observe, verb, error)
        observe(Observation(Metric.VERBS, labels=(verb, outcome)))
        raise
    outcome = outcome_of(answer)
    observe(Observation(Metric.VERBS, labels=(verb, outcome)))
    if outcome is Outcome.DONE:
        observe(Observation(Metric.VERB_SECONDS, time.monotonic() - started, (verb,)))
    return answer


def _observe_error(observe: Observe, verb: Verb, error: BaseException) -> Outcome:
    match error:
        case TransientError():
            outcome, name = Outcome.TRANSIENT, type(error).__name__
        case PermanentError():
            outcome, name = Outcome.PERMANENT, type(error).__name__
        case Exception():
            outcome, name = Outcome.UNFORESEEN, UNFORESEEN
        case _:
            return Outcome.INTERRUPTED
    observe(Observation(Metric.ERRORS, labels=(outcome, name)))
    if verb is Verb.DESTROY and isinstance(error, TeardownFailed | RemovalFailed):
        observe(Observation(Metric.REMOVE_CONTAINER_ERRORS))
    return outcome


@contextmanager
def observed_lock(observe: Observe, mode: LockMode) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """Tell how long the body waited to be let in, and for how long it held the lock.

    It is given what to call at the grant, from which on others wait, and what to call once the fence let it in too: a
    wait for the fence counts for both.
    """
    asked = time.monotonic()
    granted: float | None = None
    is_in = False

    def note_grant() -> None:
        nonlocal granted
        granted = time.monotonic()

    def note_entry() -> None:
        nonlocal is_in
        is_in = True
        observe(Observation(Metric.LOCK_WAIT_SECONDS, time.monotonic() - asked, (mode, GRANTED)))

    try:
        yield note_grant, note_entry
    finally:
        ended = time.monotonic()
        if not is_in:
            observe(Observation(Metric.LOCK_WAIT_SECONDS, ended - asked, (mode, FAILED)))
        if granted is not None:
            observe(Observation(Metric.LOCK_HOLD_SECONDS, ended - granted, (mode,)))


@contextmanager
def observed_pull(observe: Observe, bytes_fetched: Callable[[], int]) -> Iterator[None]:
    """Tell how long a pull took, failed ones included, unless it only waited for somebody else's; and what it fetched.

    Args:
        bytes_fetched: Asked at the end.
    """
    started = time.monotonic()
    is_done = False
    try:
        yield
        is_done = True
    finally:
        fetched = bytes_fetched()
        observe(Observation(Metric.FETCHED_BYTES, fetched))
        if fetched or not is_done:
            observe(Observation(Metric.IMAGE_PULL_SECONDS, time.monotonic() - started))


@contextmanager
def observed_removal(observe: Observe, backend: str) -> Iterator[None]:
    """Tell of a rootfs that a backend could not take down."""
    try:
        yield
    except Exception:
        observe(Observation(Metric.REMOVE_ROOTFS_ERRORS, labels=(backend,)))
        raise
