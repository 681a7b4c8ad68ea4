# SPDX-License-Identifier: Apache-2.0
"""What happens to work becomes observations; the work's own answers and errors pass unchanged."""

from collections import Counter

import pytest

from worker.errors import ImageNotFound, LockTimeout, ProvisionerError, TeardownFailed
from worker.lock import LockMode
from worker.observer import Metric, Observation, Outcome, Verb
from worker.verbs.observed import observed_lock, observed_pull, observed_removal, observed_verb


def labels_of(seen: list[Observation], metric: Metric) -> list[tuple[str, ...]]:
    """Return the labels of what was observed of one metric."""
    return [each.labels for each in seen if each.metric is metric]


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.ABSENT, Outcome.FORWARDED])
def test_an_answer_is_counted_and_timed_if_the_verb_is_done(outcome: Outcome) -> None:
    """What was only sent on, or was not there, says nothing of how long the work takes."""
    seen: list[Observation] = []

    answer = observed_verb(seen.append, Verb.DESTROY, lambda: "answer", outcome_of=lambda _: outcome)

    assert answer == "answer"
    assert labels_of(seen, Metric.VERBS) == [("destroy", outcome)]
    assert labels_of(seen, Metric.VERB_SECONDS) == ([("destroy",)] if outcome is Outcome.DONE else [])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (LockTimeout(lock="l", mode="shared", seconds=1.0), ("transient", "LockTimeout")),
        (ImageNotFound(image="secret/image", reason="none"), ("permanent", "ImageNotFound")),
        (ZeroDivisionError("secret"), ("unforeseen", "Unforeseen")),
    ],
)
def test_an_error_is_counted_by_its_class(error: Exception, expected: tuple[str, str]) -> None:
    """Never by what it says, and never by a class that is not of the tree."""
    seen: list[Observation] = []

    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        observed_verb(seen.append, Verb.PULL, fail, outcome_of=lambda _: Outcome.DONE)

    assert labels_of(seen, Metric.ERRORS) == [expected]
    assert labels_of(seen, Metric.VERBS) == [("pull", expected[0])]
    assert "secret" not in str(seen)


def test_a_told_end_is_no_error() -> None:
    """A task that is revoked with `terminate` leaves by SystemExit."""
    seen: list[Observation] = []

    def end() -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        observed_verb(seen.append, Verb.PROVISION, end, outcome_of=lambda _: Outcome.DONE)

    assert seen == [Observation(Metric.VERBS, labels=("provision", "interrupted"))]


@pytest.mark.parametrize(("verb", "count"), [(Verb.DESTROY, 1), (Verb.RECOVER, 0)])
def test_a_destroy_that_leaves_something_is_counted_apart(verb: Verb, count: int) -> None:
    """The ancestor's count."""
    seen: list[Observation] = []

    def fail() -> None:
        raise TeardownFailed(container_id="c", failures="f")

    with pytest.raises(TeardownFailed):
        observed_verb(seen.append, verb, fail, outcome_of=lambda _: Outcome.DONE)

    assert len(labels_of(seen, Metric.REMOVE_CONTAINER_ERRORS)) == count


def test_the_wait_for_a_lock_is_told_from_its_hold() -> None:
    """Also when what is done under it fails."""
    seen: list[Observation] = []

    with pytest.raises(ZeroDivisionError), observed_lock(seen.append, LockMode.SHARED) as (note_grant, note_entry):
        note_grant()
        note_entry()
        raise ZeroDivisionError

    assert labels_of(seen, Metric.LOCK_WAIT_SECONDS) == [("shared", "granted")]
    assert labels_of(seen, Metric.LOCK_HOLD_SECONDS) == [("shared",)]


def test_a_wait_in_vain_is_no_hold() -> None:
    """The time is shown all the same."""
    seen: list[Observation] = []

    with pytest.raises(LockTimeout), observed_lock(seen.append, LockMode.EXCLUSIVE):
        raise LockTimeout(lock="l", mode="exclusive", seconds=1.0)

    assert labels_of(seen, Metric.LOCK_WAIT_SECONDS) == [("exclusive", "failed")]
    assert labels_of(seen, Metric.LOCK_HOLD_SECONDS) == []


def test_a_wait_in_vain_after_the_grant_is_a_hold_too() -> None:
    """Others waited for it meanwhile."""
    seen: list[Observation] = []

    with pytest.raises(LockTimeout), observed_lock(seen.append, LockMode.EXCLUSIVE) as (note_grant, _):
        note_grant()
        raise LockTimeout(lock="fence", mode="exclusive", seconds=1.0)

    assert labels_of(seen, Metric.LOCK_WAIT_SECONDS) == [("exclusive", "failed")]
    assert labels_of(seen, Metric.LOCK_HOLD_SECONDS) == [("exclusive",)]


@pytest.mark.parametrize(("fetched", "fails", "timed"), [(7, False, 1), (0, False, 0), (0, True, 1), (3, True, 1)])
def test_a_pull_counts_unless_it_only_waited(fetched: int, fails: bool, timed: int) -> None:
    """Failed ones count, as in the ancestor; bytes do whatever came of them."""
    seen: list[Observation] = []

    try:
        with observed_pull(seen.append, lambda: fetched):
            if fails:
                raise ImageNotFound(image="i", reason="r")
    except ProvisionerError:
        assert fails

    counts = Counter(each.metric for each in seen)
    assert counts[Metric.IMAGE_PULL_SECONDS] == timed
    assert [each.value for each in seen if each.metric is Metric.FETCHED_BYTES] == [fetched]


def test_a_failed_removal_names_the_backend() -> None:
    """One that works is nothing to tell."""
    seen: list[Observation] = []

    with observed_removal(seen.append, "overlay"):
        pass
    with pytest.raises(OSError, match="busy"), observed_removal(seen.append, "bind"):
        raise OSError("busy")

    assert seen == [Observation(Metric.REMOVE_ROOTFS_ERRORS, labels=("bind",))]
