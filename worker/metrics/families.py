# SPDX-License-Identifier: Apache-2.0
"""Every metric the worker counts, as data: what it is called, what it means, how it is divided."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from worker.errors import PermanentError, ProvisionerError, TransientError
from worker.lock import LockMode
from worker.observer import Metric, Outcome, Verb
from worker.verbs.observed import FAILED, GRANTED, UNFORESEEN

PREFIX = "provisioner"

_VERBS = tuple((verb.value,) for verb in Verb)
_MODES = tuple((mode.value,) for mode in LockMode)
_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds: from one round trip to Redis to the longest wait for the lock."""
_SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
"""Seconds: from a warm provision to the pull of a very large image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric.

    Attributes:
        help: One sentence for whoever meets it in Prometheus.
        labels: Names of the labels, in the order of an observation's.
        buckets: Upper bounds of a histogram; none for a counter.
        known: Label values shown as zero before anything was observed, so that the first increase is one.
    """

    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    known: tuple[tuple[str, ...], ...] = ()


def _errors(parent: type[ProvisionerError]) -> Iterator[str]:
    """Name the classes of errors below a branch of the tree."""
    for error in parent.__subclasses__():
        yield error.__name__
        yield from _errors(error)


_ERRORS = (
    *((Outcome.TRANSIENT.value, name) for name in _errors(TransientError)),
    *((Outcome.PERMANENT.value, name) for name in _errors(PermanentError)),
    (Outcome.UNFORESEEN.value, UNFORESEEN),
)

FAMILIES: Mapping[Metric, Family] = {
    Metric.VERBS: Family(
        help="Attempts at a verb, by how they ended; a task that is retried makes several.",
        labels=("verb", "outcome"),
        known=tuple(product((verb.value for verb in Verb), (outcome.value for outcome in Outcome))),
    ),
    Metric.VERB_SECONDS: Family(
        help="How long the attempts took that were done.", labels=("verb",), buckets=_SLOW, known=_VERBS
    ),
    Metric.ERRORS: Family(help="Failed attempts, by class of the error.", labels=("outcome", "error"), known=_ERRORS),
    Metric.IMAGE_LOOKUPS: Family(
        help="Provisions and pulls whose layers were all in the store (hit), or had to be fetched (miss).",
        labels=("result",),
        known=(("hit",), ("miss",)),
    ),
    Metric.IMAGE_PULL_SECONDS: Family(
        help="How long fetching an image's missing layers took, failed pulls included.", buckets=_SLOW, known=((),)
    ),
    Metric.FETCHED_BYTES: Family(help="Compressed bytes of layers fetched from their source.", known=((),)),
    Metric.LOCK_WAIT_SECONDS: Family(
        help="Wait for the cluster lock and the store's fence, until it was granted or failed.",
        labels=("mode", "result"),
        buckets=_QUICK,
        known=tuple(product((mode.value for mode in LockMode), (GRANTED, FAILED))),
    ),
    Metric.LOCK_HOLD_SECONDS: Family(
        help="How long the cluster lock was held, from its grant to its release.",
        labels=("mode",),
        buckets=_QUICK,
        known=_MODES,
    ),
    Metric.PRUNE_EXCLUSIVE_SECONDS: Family(
        help="How long a prune kept all others waiting, from the grant of the lock to its release.",
        buckets=_QUICK,
        known=((),),
    ),
    Metric.PRUNED_IMAGES: Family(help="Images removed by prunes.", known=((),)),
    Metric.PRUNED_LAYERS: Family(help="Layers removed by prunes.", known=((),)),
    Metric.PRUNED_BYTES: Family(help="Bytes on disk freed by prunes.", known=((),)),
    Metric.REMOVE_CONTAINER_ERRORS: Family(
        help="Destroys that left something of their container behind; the ancestor's remove_container_errors.",
        known=((),),
    ),
    Metric.REMOVE_ROOTFS_ERRORS: Family(
        help="Root filesystems that a backend could not take down; with backend=bind the ancestor's.",
        labels=("backend",),
        known=tuple((name,) for name in ("overlay", "aufs", "bind", "copy")),
    ),
    Metric.LOST_OBSERVATIONS: Family(
        help="Observations that a child of the pool could not hand over; every count may be short by so many.",
        known=((),),
    ),
}
