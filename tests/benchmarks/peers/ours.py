# SPDX-License-Identifier: Apache-2.0
"""This project, whole: a Celery worker as an operator starts it, a Redis, a scheduler that waits for results."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from celery.result import AsyncResult

from tests.benchmarks.images import Published
from tests.benchmarks.measuring.processes import Usage, descendants, own_usage, peak_rss_bytes, usage_of
from tests.benchmarks.measuring.worker import NOOP
from tests.benchmarks.peers.ready import Peer
from tests.support.needs import missing_redis, missing_root
from tests.support.redis_server import RedisServer, default_kind, redis_server
from tests.support.schedulers import Scheduler
from tests.support.workers import Node
from worker.image import LayerFormat
from worker.layers.erofs.probe import erofs_unsupported_reason

FORMATS = (LayerFormat.EROFS, LayerFormat.DIRECTORY)
WAIT_SECONDS = 900


class OurNode:
    """A node and its scheduler.

    Attributes:
        node: The worker.
        server: Its Redis.
    """

    def __init__(self, node: Node, server: RedisServer, scheduler: Scheduler) -> None:
        self.node = node
        self.server = server
        self._scheduler = scheduler

    def call(self, task: str, **keywords: Any) -> Any:
        """Enqueue `provisioner.<task>` and wait for its result."""
        return self._scheduler.send(task, **keywords).get(timeout=WAIT_SECONDS)

    def send(self, task: str, **keywords: Any) -> AsyncResult:
        """Enqueue `provisioner.<task>`."""
        return self._scheduler.send(task, **keywords)

    def call_other(self, name: str) -> Any:
        """Enqueue a task of the benchmark and wait for its result."""
        return self._scheduler.app.send_task(name, queue="provision").get(timeout=WAIT_SECONDS)

    def provision(self, image: Published) -> Path:
        """As any scheduler does."""
        return Path(self.call("provision", container_id="cold", image=image.reference)["rootfs"])

    def usage(self) -> Usage:
        """Worker, Redis, and the scheduler, which is this process."""
        return usage_of([self.node.pid, self.server.pid]) + own_usage()

    def peak_rss_bytes(self) -> int:
        """Of the worker's processes."""
        return peak_rss_bytes([self.node.pid])

    def pool_pid(self) -> int:
        """Return the one process that runs tasks, of a node with a concurrency of one."""
        return descendants([self.node.pid])[1]


@contextmanager
def running(
    directory: Path,
    *,
    layer_format: LayerFormat,
    concurrency: int = 1,
    environment: Mapping[str, str] | None = None,
) -> Iterator[OurNode]:
    """Run a node with an empty store; each process of its pool has served a task before."""
    redis_dir = directory / "redis"
    redis_dir.mkdir(parents=True)
    settings = {"PROVISIONER_LAYER_FORMAT": layer_format.value, **(environment or {})}
    with redis_server(redis_dir, kind=default_kind()) as server:
        node = Node("bench", directory / "node", redis_url=server.url, **settings)
        with _started(node, concurrency), closing(Scheduler(server.url)) as scheduler:
            # Ctrl-C reaches Redis as well: nobody shall wait for it to come back.
            scheduler.app.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 1}}
            ours = OurNode(node, server, scheduler)
            for number in range(2 * concurrency):
                ours.call("destroy", container_id=f"nobody-{number}")
                ours.call_other(NOOP)
            yield ours


@contextmanager
def _started(node: Node, concurrency: int) -> Iterator[None]:
    options = ("--concurrency", str(concurrency), "--include", "tests.benchmarks.measuring.worker")
    try:
        node.start(*options)
        yield
    finally:
        node.kill()


def unsupported(layer_format: LayerFormat) -> str | None:
    """Say why this machine cannot run us in the format."""
    if (reason := missing_root() or missing_redis()) is not None:
        return reason
    if layer_format is LayerFormat.EROFS:
        return erofs_unsupported_reason(Path(tempfile.gettempdir()))
    return None


def usable_formats(say: Callable[[str], None]) -> Iterator[LayerFormat]:
    """Return the formats that this machine can use, and say of the others why not."""
    for each in FORMATS:
        if (reason := unsupported(each)) is None:
            yield each
        else:
            say(f"skipped: {each}: {reason}")


OURS = tuple(
    Peer(
        name=f"provisioner ({each})",
        missing=partial(unsupported, each),
        start=partial(running, layer_format=each),
        is_ours=True,
    )
    for each in FORMATS
)
