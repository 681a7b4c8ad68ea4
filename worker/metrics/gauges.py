# SPDX-License-Identifier: Apache-2.0
"""`NodeGauges`: what is looked up when somebody asks: containers and nodes in Redis, images and layers on disk."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Metric as ShownMetric
from prometheus_client.core import GaugeMetricFamily

import worker
from worker.container_index import ContainerIndex
from worker.containers import Containers
from worker.errors import StateUnavailable
from worker.metrics.families import PREFIX
from worker.nodes import Nodes, NodeStatus
from worker.settings import Settings
from worker.store.usage import StoreUsage
from worker.transport.depth import QueueDepths


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where a node's gauges are looked up.

    Attributes:
        containers: Their state in Redis. Like the next three, on a client that gives up in less time than a scrape has.
        index: Of the same containers.
        nodes: The registry of nodes.
        queues: What waits in them.
        usage: Of the node's store.
    """

    containers: Containers
    index: ContainerIndex
    nodes: Nodes
    queues: QueueDepths
    usage: StoreUsage


class NodeGauges:
    """A collector of prometheus_client. May be used by threads.

    What cannot be looked up is left out of the page, which never fails and never shows what was true before.

    Args:
        settings: Of the node.
        sources: Where to look.
    """

    def __init__(self, settings: Settings, sources: Sources) -> None:
        self._settings = settings
        self._sources = sources

    def collect(self) -> Iterator[ShownMetric]:
        """Yield every gauge that can be looked up now."""
        yield self._info()
        yield from self._from_redis()
        yield from self._from_store()
        yield from self._from_filesystems()

    def _info(self) -> ShownMetric:
        labels = {"cluster": self._settings.cluster, "node": self._settings.node, "version": worker.__version__}
        info = _gauge("info", "1, for the labels: which node this is.", *labels)
        info.add_metric(list(labels.values()), 1)
        return info

    def _from_redis(self) -> Iterator[ShownMetric]:
        up = _gauge("redis_up", "Whether Redis answered this page.")
        try:
            shown = [self._cluster_containers(), self._node_containers(), self._cluster_nodes(), *self._queues()]
        except StateUnavailable:
            shown = []
        up.add_metric([], bool(shown))
        yield up
        yield from shown

    def _cluster_containers(self) -> ShownMetric:
        gauge = _gauge("cluster_containers", "Containers of the whole cluster; every node tells the same.", "state")
        for state, count in self._sources.containers.counts().items():
            gauge.add_metric([state], count)
        return gauge

    def _node_containers(self) -> ShownMetric:
        gauge = _gauge("node_containers", "Containers of this node, in any state.")
        gauge.add_metric([], self._sources.index.count(self._settings.node))
        return gauge

    def _cluster_nodes(self) -> ShownMetric:
        gauge = _gauge("cluster_nodes", "Nodes of the whole cluster; every node tells the same.", "state")
        counts = dict.fromkeys(("live", "recovering", "gone"), 0)
        for status in self._sources.nodes.all():
            counts[_state(status)] += 1
        for state, count in counts.items():
            gauge.add_metric([state], count)
        return gauge

    def _queues(self) -> Iterator[ShownMetric]:
        depth = self._sources.queues.read()
        cluster = _gauge("cluster_messages", "Messages of the whole cluster; every node tells the same.", "state")
        for state, count in (("waiting", depth.waiting), ("delayed", depth.delayed), ("dead", depth.dead)):
            cluster.add_metric([state], count)
        here = _gauge("node_messages", "Messages that wait in this node's own queue.")
        here.add_metric([], depth.waiting_here)
        yield from (cluster, here)

    def _from_store(self) -> Iterator[ShownMetric]:
        images = _gauge("store_images", "Images in this node's store.")
        layers = _gauge("store_layers", "Layers in this node's store.", "format")
        sizes = _gauge("store_layer_bytes", "What the store's layers take on disk.", "format")
        try:
            images.add_metric([], self._sources.usage.images())
            for layer_format, held in self._sources.usage.held().items():
                layers.add_metric([layer_format], held.layers)
                sizes.add_metric([layer_format], held.disk_bytes)
        except OSError:
            return  # Not there yet, or the network filesystem it is on is away.
        yield from (images, layers, sizes)

    def _from_filesystems(self) -> Iterator[ShownMetric]:
        sizes = _gauge("filesystem_size_bytes", "Size of the filesystem that holds a directory.", "directory")
        free = _gauge("filesystem_free_bytes", "What is free there.", "directory")
        inodes = _gauge("filesystem_free_inodes", "How many more files it can hold.", "directory")
        for name, directory in (("store", self._settings.store_dir), ("work", self._settings.work_dir)):
            statistics = _statistics(directory)
            if statistics is not None:
                sizes.add_metric([name], statistics.f_blocks * statistics.f_frsize)
                free.add_metric([name], statistics.f_bavail * statistics.f_frsize)
                inodes.add_metric([name], statistics.f_favail)
        yield from (sizes, free, inodes)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels)


def _state(status: NodeStatus) -> str:
    if not status.is_live:
        return "gone"
    return "live" if status.is_recovered else "recovering"


def _statistics(directory: Path) -> os.statvfs_result | None:
    try:
        return os.statvfs(directory)
    except OSError:
        return None
