# SPDX-License-Identifier: Apache-2.0
"""The Celery app: `celery --app worker worker` serves this node.

Every option is here for a reason that its comment gives; a test lists them, since Celery accepts misspelt ones.
"""

import warnings
from typing import Any

from celery import Celery
from celery.exceptions import SecurityWarning
from kombu.entity import Exchange, Queue

from worker import results
from worker.settings import PROVISION_QUEUE, Settings, process_settings

TASK_MODULES = (
    "tasks.rootfs",
    "tasks.images",
    "tasks.recovery",
    "tasks.revocation",
    "tasks.lifecycle",
    "tasks.reconciler",
    "tasks.metrics",
)


def make_config(settings: Settings) -> dict[str, Any]:
    """Translate Settings into Celery's."""
    timeouts = {
        # Without them a publish over a silently dead connection blocks for ever.
        "socket_timeout": settings.redis_timeout_seconds,
        "socket_connect_timeout": settings.redis_timeout_seconds,
        "socket_keepalive": True,
        "health_check_interval": 25,
    }
    return {
        "broker_url": settings.redis_url,
        "result_backend": settings.redis_url,
        # Most are for the transport that a worker's process consumes with; see `worker.transport.select`.
        "broker_transport_options": {
            "consumer_name": settings.node,
            "queue_key": settings.queue_key,
            "max_deliveries": settings.max_deliveries,
            "visibility_timeout": settings.visibility_timeout_seconds,
            # How often the worker's loop gives its sign of life and looks for the dead.
            "unacked_restore_interval": settings.beat_seconds,
            **timeouts,
            **settings.sentinel_options,
        },
        "result_backend_transport_options": settings.sentinel_options,
        # Keeps over a lost connection what Celery's would drop, or run twice.
        "worker_consumer": "tasks.consumer:Consumer",
        # The transport counts what still runs; Celery's guess on top of it would leave slots empty.
        "worker_enable_prefetch_count_reduction": False,
        "redis_socket_timeout": settings.redis_timeout_seconds,
        "redis_socket_connect_timeout": settings.redis_timeout_seconds,
        "redis_socket_keepalive": True,
        "redis_backend_health_check_interval": 25,
        # While Redis is away or refuses, a state or an answer waits for it, however long: Celery 5.7 takes either for
        # the end of the task, acknowledges it unrun, and drops the answer of one that is done. See `worker.results`.
        "result_backend_always_retry": True,
        "result_backend_max_sleep_between_retries_ms": 2000,
        "broker_connection_retry_on_startup": True,
        # Also if Redis can be reached and refuses; otherwise a worker ends that connects to one that is full.
        "broker_channel_error_retry": True,
        # What everybody publishes to, and what only this node serves.
        "task_default_queue": PROVISION_QUEUE,
        "task_queues": (_queue(PROVISION_QUEUE), _queue(settings.node_queue)),
        # A task is acknowledged when it is done, and one message at a time is taken: a killed worker loses nothing
        # it had not begun, and every task may run twice to the effect of once.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        # JSON only: nothing in a message is ever executed.
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
        # What schedulers, the command line and Flower want to see.
        "task_track_started": True,
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "result_extended": True,
        "result_expires": 86_400,
        "include": TASK_MODULES,
        "beat_schedule": _beat_schedule(settings),
        "worker_redirect_stdouts": False,
    }


def _queue(name: str) -> Queue:
    """Return a queue that only what names it reaches: with a common exchange, one message would reach both."""
    return Queue(name, exchange=Exchange(name, type="direct"), routing_key=name)


def _beat_schedule(settings: Settings) -> dict[str, Any]:
    """Prune every so often, if the operator wants it; the ancestor's image garbage collection."""
    if settings.prune_interval_seconds is None:
        return {}
    keywords = {
        "excluded_images": list(settings.prune_excluded_images),
        "unused_seconds": settings.prune_unused_seconds,
        "free_percent": settings.prune_free_percent,
    }
    return {
        "prune": {"task": "provisioner.prune", "schedule": settings.prune_interval_seconds, "kwargs": keywords},
    }


# A worker that mounts has to be root, and takes nothing but JSON: the warning's reason, pickle, is not there.
warnings.filterwarnings(
    "ignore", message="You're running the worker with superuser privileges", category=SecurityWarning
)


def make_app(settings: Settings) -> Celery:
    """Make the app for a node."""
    app = Celery("provisioner", task_cls="tasks.base:PatientTask")
    results.select(app)
    app.conf.update(make_config(settings))
    return app


app = make_app(process_settings())
