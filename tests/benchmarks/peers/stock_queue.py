# SPDX-License-Identifier: Apache-2.0
"""A worker with all of our Celery configuration but what the queue's own transport needs: kombu's serves it.

`celery --app tests.benchmarks.peers.stock_queue worker`.
"""

from celery import Celery

from worker.celery import make_config
from worker.settings import process_settings

app = Celery("stock")
app.conf.update(
    make_config(process_settings())
    | {
        "broker_transport_options": {"visibility_timeout": 3600},
        "worker_consumer": "celery.worker.consumer:Consumer",
        # Celery's default, on which its own consumer relies after a reconnect.
        "worker_enable_prefetch_count_reduction": True,
        # Ours is chosen by what the node's tasks bring along.
        "include": ("tests.benchmarks.measuring.tally",),
    }
)
