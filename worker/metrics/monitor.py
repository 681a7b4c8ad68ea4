# SPDX-License-Identifier: Apache-2.0
"""`Monitor`: recorder, tally, gauges and page of one worker, in its main process."""

import os
import weakref

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from worker.errors import InvalidArgument
from worker.metrics.endpoint import Endpoint
from worker.metrics.recorder import Recorder
from worker.metrics.tally import Tally
from worker.observer import Observation
from worker.settings import Settings


class Monitor:
    """Counts what the worker's processes observe, and shows it over HTTP, from when it is made until it is closed.

    Made before the pool is: its children inherit the way to it, and nothing else of it.

    Args:
        settings: Name address and port.
        gauges: What to show besides.

    Raises:
        InvalidArgument: It cannot listen there.
    """

    def __init__(self, settings: Settings, gauges: Collector) -> None:
        tally, registry = Tally(), CollectorRegistry()
        registry.register(tally)
        registry.register(gauges)
        self._endpoint = _listen(settings, registry)
        self._recorder = Recorder(tally.add)
        _monitors.add(self)

    @property
    def port(self) -> int:
        """Where the page is."""
        return self._endpoint.port

    def observe(self, observation: Observation) -> None:
        """Count one observation, in whichever process of the worker: an `Observe`."""
        self._recorder.observe(observation)

    def close(self) -> None:
        """Stop listening, and counting what other processes observe."""
        _monitors.discard(self)
        self._endpoint.close()
        self._recorder.close()

    def close_in_child(self) -> None:
        """Let go of what only the main process needs, in a process that was forked from it."""
        self._endpoint.close_in_child()
        self._recorder.close_in_child()


def _listen(settings: Settings, registry: CollectorRegistry) -> Endpoint:
    address, port = str(settings.metrics_address), settings.metrics_port or 0
    try:
        return Endpoint(registry, address=address, port=port)
    except (OSError, OverflowError) as error:
        value = f"{address}, port {port}"
        raise InvalidArgument(argument="PROVISIONER_METRICS_PORT", value=value, reason=str(error)) from error


_monitors: weakref.WeakSet[Monitor] = weakref.WeakSet()


def _close_in_child() -> None:
    for monitor in list(_monitors):
        monitor.close_in_child()
    _monitors.clear()


os.register_at_fork(after_in_child=_close_in_child)
