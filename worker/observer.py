# SPDX-License-Identifier: Apache-2.0
"""What can be observed of a node's work, as values: the seam between the work and whoever measures it.

Whoever works is given an `Observe` and calls it with facts; it knows neither names on a page nor how they get there.
Labels are closed sets, named here or by the error tree. A container's id, an image's name or a sentence is never one:
each value would be a time series of its own that Prometheus keeps for weeks, and a page everybody in the network reads
is no place for what users run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Verb(StrEnum):
    """What a node is asked to do."""

    PROVISION = "provision"
    DESTROY = "destroy"
    PULL = "pull"
    PRUNE = "prune"
    RECOVER = "recover"
    VERIFY = "verify"


class Outcome(StrEnum):
    """How one attempt at a verb ended.

    DONE: With an answer.
    ABSENT: With the answer that there is no such container.
    FORWARDED: It belongs to another node.
    TRANSIENT: With an error after which a retry may help.
    PERMANENT: With an error after which it does not.
    UNFORESEEN: With an exception that is no error of the provisioner's.
    INTERRUPTED: Its process was told to end.
    """

    DONE = "done"
    ABSENT = "absent"
    FORWARDED = "forwarded"
    TRANSIENT = "transient"
    PERMANENT = "permanent"
    UNFORESEEN = "unforeseen"
    INTERRUPTED = "interrupted"


class Metric(StrEnum):
    """What is measured; the comment says which labels an observation carries, in order."""

    VERBS = "verbs"  # verb, outcome
    VERB_SECONDS = "verb_seconds"  # verb; of those that are done
    ERRORS = "errors"  # outcome, class of the error
    IMAGE_LOOKUPS = "image_lookups"  # hit or miss
    IMAGE_PULL_SECONDS = "image_pull_seconds"
    FETCHED_BYTES = "fetched_bytes"
    LOCK_WAIT_SECONDS = "lock_wait_seconds"  # mode, granted or failed
    LOCK_HOLD_SECONDS = "lock_hold_seconds"  # mode
    PRUNE_EXCLUSIVE_SECONDS = "prune_exclusive_seconds"
    PRUNED_IMAGES = "pruned_images"
    PRUNED_LAYERS = "pruned_layers"
    PRUNED_BYTES = "pruned_bytes"
    REMOVE_CONTAINER_ERRORS = "remove_container_errors"
    REMOVE_ROOTFS_ERRORS = "remove_rootfs_errors"  # backend
    LOST_OBSERVATIONS = "lost_observations"


@dataclass(frozen=True, slots=True)
class Observation:
    """One fact.

    Attributes:
        metric: Of what.
        value: To add to a count, or a duration or size.
        labels: As the metric wants them.
    """

    metric: Metric
    value: float = 1.0
    labels: tuple[str, ...] = ()


Observe = Callable[[Observation], None]
"""Takes a fact, from any thread. Never raises and never waits: work is not held up by its measurement."""


def ignore(_: Observation) -> None:
    """Measure nothing."""
