# SPDX-License-Identifier: Apache-2.0
"""`Tally`: adds observations up, and shows them as Prometheus reads them."""

import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import Metric as ShownMetric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from worker.metrics.families import FAMILIES, PREFIX, Family
from worker.observer import Metric, Observation

_INFINITY = float("inf")


class _Series:
    """One metric with one set of label values."""

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self._bounds = (*buckets, _INFINITY)
        self._counts = [0] * len(self._bounds)
        self.total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Return, for each upper bound, how many values were at or below it."""
        return list(zip(map(floatToGoString, self._bounds), map(float, accumulate(self._counts)), strict=True))


class Tally:
    """Counts of one process. May be used by threads; a collector of prometheus_client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._series = {
            metric: {labels: _Series(family.buckets) for labels in family.known} for metric, family in FAMILIES.items()
        }

    def add(self, observation: Observation) -> None:
        """Add one observation.

        Raises:
            ValueError: It has not as many labels as its metric.
        """
        family = FAMILIES[observation.metric]
        labels = tuple(map(str, observation.labels))
        if len(labels) != len(family.labels):
            raise ValueError(f"{observation.metric} takes the labels {family.labels}, not {labels}")
        with self._lock:
            series = self._series[observation.metric].setdefault(labels, _Series(family.buckets))
            series.add(observation.value)

    def collect(self) -> Iterator[ShownMetric]:
        """Yield every metric, also those nothing was observed of."""
        for metric, family in FAMILIES.items():
            with self._lock:
                yield _shown(metric, family, self._series[metric])


def _shown(metric: Metric, family: Family, series: Mapping[tuple[str, ...], _Series]) -> ShownMetric:
    name = f"{PREFIX}_{metric}"
    if not family.buckets:
        counter = CounterMetricFamily(name, family.help, labels=family.labels)
        for labels, each in series.items():
            counter.add_metric(labels, each.total)
        return counter
    histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
    for labels, each in series.items():
        histogram.add_metric(labels, buckets=each.cumulative(), sum_value=each.total)
    return histogram
