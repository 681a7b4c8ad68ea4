# SPDX-License-Identifier: Apache-2.0
"""The composition root: Settings in, one Provisioner per process out. The only place that builds dependencies."""

import os
import threading
from pathlib import Path

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from worker.backends import choose_backend, supported_backends
from worker.containers import Containers
from worker.errors import InvalidArgument
from worker.image import LayerFormat
from worker.layers.erofs.probe import erofs_unsupported_reason
from worker.linux import durable
from worker.lock import ReadWriteLock
from worker.nodes import Nodes
from worker.paths import WorkPaths
from worker.provisioner import Provisioner
from worker.pullers import make_pullers
from worker.settings import Settings
from worker.store.image_mounts import ImageMounts
from worker.store.store import Store
from worker.verbs.node import Node

_REDIS_RETRIES = 3


def make_redis(settings: Settings) -> redis.Redis:
    """Connect to Redis: text replies, no call without a bound, short retries because every script is idempotent."""
    return redis.Redis.from_url(
        settings.redis_url,
        decode_responses=True,
        socket_timeout=settings.redis_timeout_seconds,
        socket_connect_timeout=settings.redis_timeout_seconds,
        socket_keepalive=True,
        health_check_interval=30,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), _REDIS_RETRIES),
    )


def make_provisioner(settings: Settings) -> Provisioner:
    """Put one node's provisioner together.

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
        containers=Containers(client, settings.key_prefix),
        pullers=make_pullers(settings),
        backends=supported_backends(**directories),
        default_backend=choose_backend(settings.backend, **directories),
        layer_formats=supported_layer_formats(settings.store_dir),
        image_mounts=ImageMounts(work),
        is_squashed=os.geteuid() != 0,
    )
    return Provisioner(node)


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


def process_provisioner(settings: Settings) -> Provisioner:
    """Return this process's provisioner, built at the first call.

    A forked child builds its own: it may share neither sockets nor locks with its parent.
    """
    key = (os.getpid(), settings)
    with _lock:
        if key not in _provisioners:
            _provisioners[key] = make_provisioner(settings)
        return _provisioners[key]


def process_nodes(settings: Settings) -> Nodes:
    """Return this process's view of the registry of nodes."""
    key = (os.getpid(), settings)
    with _lock:
        if key not in _nodes:
            _nodes[key] = Nodes(make_redis(settings), settings.key_prefix)
        return _nodes[key]
