# SPDX-License-Identifier: Apache-2.0
"""`Cluster`: what commands talk to; connects when something is asked of it."""

from collections.abc import Callable
from functools import cached_property, wraps
from typing import Concatenate, ParamSpec, TypeVar

import redis
from celery import Celery

from worker.containers import Containers
from worker.errors import NodeUnreachable
from worker.lock import ReadWriteLock
from worker.nodes import Nodes, NodeStatus
from worker.runtime import make_redis
from worker.settings import Settings, load_settings, queue_of_node
from worker.transport.backlog import Backlog

_SEND_RETRIES = {"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


class Cluster:
    """One cluster, as the settings name it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def client(self) -> redis.Redis:
        """A connection to the cluster's Redis."""
        return make_redis(self.settings)

    @cached_property
    def nodes(self) -> Nodes:
        """The registry of nodes."""
        return Nodes(self.client, self.settings.key_prefix)

    @cached_property
    def containers(self) -> Containers:
        """The containers' state."""
        return Containers(self.client, self.settings.key_prefix)

    @cached_property
    def app(self) -> Celery:
        """A plain Celery app, as any scheduler would make: it knows names of tasks, not their code."""
        return make_app(self.settings)

    def lock(self, store_id: str) -> ReadWriteLock:
        """Return the lock of a store, to look at."""
        return ReadWriteLock(self.client, f"{self.settings.key_prefix}:lock:{store_id}")

    def backlog(self, node: str) -> Backlog:
        """Return what waits for one node alone."""
        return Backlog(self.client, queue_of_node(node), queue_key=self.settings.queue_key)

    def check_served(self, node: str | None) -> None:
        """Check that somebody will take a task: else it would lie in the queue and run when nobody expects it.

        Raises:
            NodeUnreachable: No live node, or not this one.
            StateUnavailable: Redis cannot be reached.
        """
        live = {status.view.name for status in self.live_nodes()}
        if node is not None and node not in live:
            raise NodeUnreachable(node=node)
        if not live:
            raise NodeUnreachable(node=f"of cluster {self.settings.cluster!r}")

    def live_nodes(self) -> tuple[NodeStatus, ...]:
        """Return the nodes that are alive. Raises StateUnavailable."""
        return tuple(status for status in self.nodes.all() if status.is_live)


def make_app(settings: Settings) -> Celery:
    """Make an app that only sends: JSON, and no call without a bound."""
    timeouts = {
        "socket_timeout": settings.redis_timeout_seconds,
        "socket_connect_timeout": settings.redis_timeout_seconds,
        "socket_keepalive": True,
    }
    app = Celery("provisioner-cli", broker=settings.redis_url, backend=settings.redis_url, set_as_current=False)
    app.conf.update(
        broker_transport_options=timeouts | settings.sentinel_options,
        redis_socket_timeout=settings.redis_timeout_seconds,
        redis_socket_connect_timeout=settings.redis_timeout_seconds,
        redis_socket_keepalive=True,
        # By default a sender tries for 20 s to hear of results from a server that is not there.
        result_backend_transport_options={"retry_policy": _SEND_RETRIES, **settings.sentinel_options},
        task_publish_retry_policy=_SEND_RETRIES,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        task_send_sent_event=True,
    )
    return app


def pass_cluster(command: Callable[Concatenate[Cluster, Arguments], Answer]) -> Callable[Arguments, Answer]:
    """Give a command the cluster of this shell as its first argument; `--help` works whatever the variables hold."""

    @wraps(command)
    def run(*args: Arguments.args, **keywords: Arguments.kwargs) -> Answer:
        return command(Cluster(load_settings()), *args, **keywords)

    return run
