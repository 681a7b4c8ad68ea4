# SPDX-License-Identifier: Apache-2.0
"""What a worker does besides tasks: recover before it takes work, then show the node as alive.

All of it runs in the worker's main process; the pool's children build their own provisioners and connections.
"""

import logging
import os
import socket
import time
from typing import Any

from celery.signals import celeryd_after_setup, celeryd_init
from kombu.exceptions import OperationalError
from typing_extensions import override

import worker
from tasks.presence import starting
from tasks.recovery import recover_node
from tasks.repeated import Repeated
from worker.celery import app
from worker.errors import PermanentError, TransientError
from worker.linux.flock import try_lock
from worker.nodes import NodeView
from worker.paths import WorkPaths
from worker.runtime import process_provisioner, process_registry
from worker.settings import Settings, process_settings
from worker.transport import select

_log = logging.getLogger(__name__)
_LONGEST_PAUSE_SECONDS = 2.0
_MISSED_HEARTBEATS = 3
_ASK_AGAIN_SECONDS = 30.0


@celeryd_init.connect  # type: ignore[untyped-decorator]
def name_worker(instance: Any, **_: object) -> None:
    """Name the worker after its node, so that two nodes on one host differ; an explicit --hostname stays."""
    if instance.hostname == f"celery@{socket.gethostname()}":
        instance.hostname = f"provisioner@{process_settings().node}"


@celeryd_init.connect  # type: ignore[untyped-decorator]
def select_transport(**_: object) -> None:
    """Consume with the transport that loses nothing; before the worker looks at the broker's URL."""
    select()


@celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def recover_at_start(**_: object) -> None:
    """Recover the node; while Redis is away, wait for it as the worker itself would.

    Runs once logging is set up and before the pool is started. An error that a retry does not help ends the worker.
    """
    settings = process_settings()
    with starting(WorkPaths(settings.work_dir)) as is_alone:
        _recover_until_done(settings, is_start=is_alone)


def _recover_until_done(settings: Settings, *, is_start: bool) -> None:
    pause = 0.5
    while True:
        try:
            answer = recover_node(process_provisioner(settings), {}, is_start=is_start)
        except TransientError as error:
            _log.warning("recovery of node %s waits: %s", settings.node, error)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        except PermanentError as error:
            # SystemExit, because Celery logs a signal handler's other exceptions and goes on.
            raise SystemExit(f"node {settings.node} cannot start: {error}") from error
        else:
            _log.info("node %s recovered: %s", settings.node, answer)
            return


class Heartbeat(Repeated):
    """Shows the node in the registry every `heartbeat_seconds`; when it stops, the node fades by itself."""

    is_done_at_once = True

    @override
    def seconds(self, settings: Settings) -> float:
        return settings.heartbeat_seconds

    @override
    def act(self, settings: Settings) -> None:
        beat(settings)


def beat(settings: Settings) -> None:
    """Show the node as alive; when Redis does not remember it, have its state rebuilt.

    A failure is logged: the next beat tries again, and the loop that calls this must not end.
    """
    try:
        is_recovered = process_registry(settings).nodes.heartbeat(
            _view(settings), ttl_seconds=settings.heartbeat_seconds * _MISSED_HEARTBEATS
        )
        if not is_recovered:
            _ask_to_recover(settings)
    except (TransientError, OSError, OperationalError) as error:
        _log.warning("heartbeat of node %s: %s", settings.node, error)


_asked: dict[str, float] = {}
"""When a recover was asked for, on the monotonic clock, by mark of the epoch: another epoch may have lost the task."""


def _ask_to_recover(settings: Settings) -> None:
    """Publish a recover of this node, unless one runs or was asked for a short while ago: it takes the mark off."""
    epoch, now = process_registry(settings).epoch.join().mark, time.monotonic()
    running = try_lock(WorkPaths(settings.work_dir).recovery_lock_path, exclusive=True)
    if running is None:
        return
    running.release()
    if now - _asked.get(epoch, -_ASK_AGAIN_SECONDS) < _ASK_AGAIN_SECONDS:
        return
    _log.warning("Redis does not know node %s as recovered: its state is rebuilt from disk", settings.node)
    keywords = {"node": settings.node}
    # Behind a full pool they would pile up, and each takes the mark off again. The loop waits for no second try.
    options = {"queue": settings.node_queue, "expires": _ASK_AGAIN_SECONDS, "retry": False, "ignore_result": True}
    app.send_task("provisioner.recover", kwargs=keywords, **options)
    _asked.clear()
    _asked[epoch] = now


def _view(settings: Settings) -> NodeView:
    node = process_provisioner(settings).node
    statistics = os.statvfs(settings.store_dir)
    return NodeView(
        name=settings.node,
        store_id=node.store.identity,
        backends=tuple(node.backends),
        layer_formats=tuple(each for each in node.default_backend.layer_formats if each in node.layer_formats),
        backend=node.default_backend.name,
        free_bytes=statistics.f_bavail * statistics.f_frsize,
        version=worker.__version__,
    )


app.steps["consumer"].add(Heartbeat)
