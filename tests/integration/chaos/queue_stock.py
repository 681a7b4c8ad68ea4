# SPDX-License-Identifier: Apache-2.0
"""Stock Celery on its own Redis transport, as safe as its options make it: what ours is compared with.

`celery --app tests.integration.chaos.queue_stock worker`.
"""

from celery import Celery
from kombu.entity import Exchange, Queue

from tests.integration.chaos.queue_names import QUEUE
from worker.settings import process_settings

_TIMEOUTS = {"socket_timeout": 5.0, "socket_connect_timeout": 5.0, "socket_keepalive": True}

app = Celery("stock", include=["tests.integration.chaos.queue_tasks"])
app.conf.update(
    broker_url=process_settings().redis_url,
    broker_transport_options={
        # An hour by default, and looked for every 100 seconds: no test would see a dead worker's tasks again.
        "visibility_timeout": process_settings().visibility_timeout_seconds,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        **_TIMEOUTS,
    },
    broker_connection_retry_on_startup=True,
    task_default_queue=QUEUE,
    task_queues=(Queue(QUEUE, exchange=Exchange(QUEUE, type="direct"), routing_key=QUEUE),),
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
)
