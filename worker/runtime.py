# SPDX-License-Identifier: Apache-2.0
"""The composition root: Settings in, one Provisioner per process out. The only place that builds dependencies."""

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from worker.backends import choose_backend, supported_backends
from worker.container_index import ContainerIndex
from worker.containers import Containers
from worker.epoch import Epoch
from worker.errors import InvalidArgument
from worker.image import LayerFormat
from worker.layers.erofs.probe import erofs_unsupported_reason
from worker.linux import durable
from worker.lock import ReadWriteLock
from worker.metrics.gauges import NodeGauges, Sources
from worker.metrics.monitor import Monitor
from worker.nodes import Nodes
from worker.observer import Observe, ignore
from worker.paths import StorePaths, WorkPaths
from worker.provisioner import Provisioner
from worker.pullers import make_pullers
from worker.secrets import make_secrets
from worker.sentinel import connect, is_sentinel
from worker.settings import Settings
from worker.store.image_mounts import ImageMounts
from worker.store.store import Store
from worker.store.usage import StoreUsage
from worker.transport.depth import QueueDepths
from worker.verbs.node import Node

_REDIS_RETRIES = 3
_SCRAPE_TIMEOUT_SECONDS = 1.0
_QUIET_HEARTBEATS = 2


def make_redis(
    settings: Settings, *, timeout_seconds: float | None = None, retries: int = _REDIS_RETRIES
) -> redis.Redis:
    """Connect to Redis: text replies, no call without a bound, short retries because every script is idempotent.

    With sentinels the client follows a failover; until there is a master its calls fail as if the server were away.
    """
    timeout_seconds = timeout_seconds or settings.redis_timeout_seconds
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "socket_keepalive": True,
        "health_check_interval": 30,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), retries),
    }
    url = settings.redis_url
    if is_sentinel(url):
        return connect(url, settings.sentinel_master, timeout_seconds=timeout_seconds, **options)
    return redis.Redis.from_url(url, **options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """What the worker's own loop shows and looks up, over a client that keeps it from no sign of life."""

    nodes: Nodes
    containers: Containers
    epoch: Epoch


def make_registry(settings: Settings) -> Registry:
    """Put it together; a call is tried once, for no longer than a beat: the next one comes soon."""
    timeout_seconds = min(settings.redis_timeout_seconds, settings.beat_seconds)
    client = make_redis(settings, timeout_seconds=timeout_seconds, retries=0)
    epoch = make_epoch(settings, client)
    return Registry(
        nodes=Nodes(client, settings.key_prefix, epoch=epoch),
        containers=Containers(client, settings.key_prefix),
        epoch=epoch,
    )


def make_epoch(settings: Settings, client: redis.Redis) -> Epoch:
    """Return this node's part in the epoch of what Redis remembers."""
    return Epoch(
        client,
        settings.key_prefix,
        path=WorkPaths(settings.work_dir).epoch_path,
        quiet_seconds=_QUIET_HEARTBEATS * settings.heartbeat_seconds,
    )


def make_provisioner(settings: Settings, *, observe: Observe = ignore) -> Provisioner:
    """Put one node's provisioner together; `observe` is told what it does.

    Effect: makes the store and work directories if they are missing, mode 0700: images hold setuid files.

    Raises:
        BackendUnsupported: The configured backend does not work here.
        InvalidArgument: A setting is unusable.
    """
    work = WorkPaths(settings.work_dir)
    for directory in (settings.work_dir, work.containers_dir, work.trash_dir):
        durable.make_dirs(directory)
    store = Store.open(settings.store_dir)
    _check_owner(settings.store_dir)
    client = make_redis(settings)
    epoch = make_epoch(settings, client)
    directories = {"work_dir": settings.work_dir, "store_dir": settings.store_dir}
    node = Node(
        settings=settings,
        store=store,
        work=work,
        lock=ReadWriteLock(
            client,
            f"{settings.key_prefix}:lock:{store.identity}",
            lease_seconds=settings.lease_seconds,
            token_floor=store.fence.highest_token,
        ),
        containers=Containers(client, settings.key_prefix, epoch=epoch),
        epoch=epoch,
        pullers=make_pullers(settings),
        secrets=make_secrets(settings),
        backends=supported_backends(**directories),
        default_backend=choose_backend(settings.backend, **directories),
        layer_formats=supported_layer_formats(settings.store_dir),
        image_mounts=ImageMounts(work),
        is_squashed=os.geteuid() != 0,
        observe=observe,
    )
    return Provisioner(node)


def make_monitor(settings: Settings) -> Monitor:
    """Serve this node's metrics where the settings say.

    Raises:
        InvalidArgument: It cannot listen there.
    """
    client = make_redis(settings, timeout_seconds=_SCRAPE_TIMEOUT_SECONDS, retries=0)
    sources = Sources(
        containers=Containers(client, settings.key_prefix),
        index=ContainerIndex(client, settings.key_prefix),
        nodes=Nodes(client, settings.key_prefix),
        queues=QueueDepths(client, settings),
        usage=StoreUsage(StorePaths(settings.store_dir)),
    )
    return Monitor(settings, NodeGauges(settings, sources))


def _check_owner(store_dir: Path) -> None:
    """Refuse, as root, a store that somebody else made: its layers have no owners, and marks root's overlay ignores.

    Raises:
        InvalidArgument: Names the directory and its owner.
    """
    owner = store_dir.stat().st_uid
    if os.geteuid() == 0 and owner != 0:
        reason = f"user {owner} made this store, whose layers have no owners; root needs one of its own"
        raise InvalidArgument(argument="PROVISIONER_STORE_DIR", value=str(store_dir), reason=reason)


def supported_layer_formats(store_dir: Path) -> frozenset[LayerFormat]:
    """Return the formats in which layers in the directory can be used. Cost: a trial mount."""
    formats = set(LayerFormat)
    if erofs_unsupported_reason(store_dir) is not None:
        formats.discard(LayerFormat.EROFS)
    return frozenset(formats)


_lock = threading.Lock()
_provisioners: dict[tuple[int, Settings], Provisioner] = {}
_nodes: dict[tuple[int, Settings], Nodes] = {}
_registries: dict[tuple[int, Settings], Registry] = {}
_monitors: dict[Settings, Monitor] = {}


def serve_metrics(settings: Settings) -> None:
    """Serve metrics from this process until it ends, of its own work and that of the children it will have.

    Raises:
        InvalidArgument: It cannot listen there.
    """
    with _lock:
        _monitors[settings] = make_monitor(settings)


def process_provisioner(settings: Settings) -> Provisioner:
    """Return this process's provisioner, built at the first call.

    A forked child builds its own: it may share neither sockets nor locks with its parent.
    """
    key = (os.getpid(), settings)
    with _lock:
        if key not in _provisioners:
            monitor = _monitors.get(settings)
            _provisioners[key] = make_provisioner(settings, observe=monitor.observe if monitor else ignore)
        return _provisioners[key]


def process_nodes(settings: Settings) -> Nodes:
    """Return this process's view of the registry of nodes."""
    key = (os.getpid(), settings)
    with _lock:
        if key not in _nodes:
            client = make_redis(settings)
            _nodes[key] = Nodes(client, settings.key_prefix, epoch=make_epoch(settings, client))
        return _nodes[key]


def process_registry(settings: Settings) -> Registry:
    """Return this process's, for its loop."""
    key = (os.getpid(), settings)
    with _lock:
        if key not in _registries:
            _registries[key] = make_registry(settings)
        return _registries[key]
