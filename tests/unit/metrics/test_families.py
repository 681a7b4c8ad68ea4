# SPDX-License-Identifier: Apache-2.0
"""The catalogue is whole, and its labels are closed sets."""

from worker.errors import PermanentError, TransientError
from worker.metrics.families import FAMILIES
from worker.observer import Metric


def test_every_metric_is_described() -> None:
    """With a sentence, and label values as many as labels."""
    assert set(FAMILIES) == set(Metric)
    for family in FAMILIES.values():
        assert family.help.endswith(".")
        assert {len(labels) for labels in family.known} == {len(family.labels)}


def test_every_error_of_the_tree_is_known() -> None:
    """By the name of its class and whether a retry helps."""
    known = set(FAMILIES[Metric.ERRORS].known)

    assert {("transient", each.__name__) for each in TransientError.__subclasses__()} <= known
    assert {("permanent", each.__name__) for each in PermanentError.__subclasses__()} <= known
    assert ("unforeseen", "Unforeseen") in known


def test_buckets_grow() -> None:
    """Prometheus wants them in order."""
    for family in FAMILIES.values():
        assert list(family.buckets) == sorted(set(family.buckets))
