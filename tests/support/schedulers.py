# SPDX-License-Identifier: Apache-2.0
"""A scheduler of another code base: stock Celery, task names as strings, nothing of ours imported."""

from typing import Any

from celery import Celery
from celery.result import AsyncResult

WAIT_SECONDS = 90


class Scheduler:
    """Publishes as any scheduler does.

    Attributes:
        app: A plain Celery app on the same Redis.
    """

    def __init__(self, redis_url: str, *, master: str | None = None) -> None:
        self.app = Celery("scheduler", broker=redis_url, backend=redis_url)
        if master is not None:
            # All that the README asks of a scheduler whose Redis is behind Sentinel.
            ask = {"socket_timeout": 1, "retry": None}
            options = {"master_name": master, "socket_timeout": 5, "sentinel_kwargs": ask}
            self.app.conf.update(
                broker_transport_options=options, result_backend_transport_options=options, redis_socket_timeout=5
            )

    def send(self, task: str, *, queue: str = "provision", **keywords: Any) -> AsyncResult:
        """Enqueue `provisioner.<task>`."""
        return self.app.send_task(f"provisioner.{task}", kwargs=keywords, queue=queue)

    def call(self, task: str, *, queue: str = "provision", **keywords: Any) -> Any:
        """Enqueue and wait; raises what the task raised."""
        return self.send(task, queue=queue, **keywords).get(timeout=WAIT_SECONDS)

    def close(self) -> None:
        """Let go of all connections."""
        self.app.close()
