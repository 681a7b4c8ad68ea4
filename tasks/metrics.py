# SPDX-License-Identifier: Apache-2.0
"""Serves the worker's metrics from its main process, when settings name a port."""

from celery.signals import celeryd_init

from worker.errors import PermanentError
from worker.runtime import serve_metrics
from worker.settings import process_settings


@celeryd_init.connect  # type: ignore[untyped-decorator]
def serve(**_: object) -> None:
    """Begin before the node recovers and long before there is a pool; an error ends the worker."""
    settings = process_settings()
    if settings.metrics_port is None:
        return
    try:
        serve_metrics(settings)
    except PermanentError as error:
        # SystemExit, because Celery logs a signal handler's other exceptions and goes on.
        raise SystemExit(f"node {settings.node} cannot start: {error}") from error
