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

    def __init__(self, redis_url: str) -> None:
        self.app = Celery("scheduler", broker=redis_url, backend=redis_url)

    def send(self, task: str, *, queue: str = "provision", **keywords: Any) -> AsyncResult:
        """Enqueue `provisioner.<task>`."""
        return self.app.send_task(f"provisioner.{task}", kwargs=keywords, queue=queue)

    def call(self, task: str, *, queue: str = "provision", **keywords: Any) -> Any:
        """Enqueue and wait; raises what the task raised."""
        return self.send(task, queue=queue, **keywords).get(timeout=WAIT_SECONDS)

    def close(self) -> None:
        """Let go of all connections."""
        self.app.close()
