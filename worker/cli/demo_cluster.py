# SPDX-License-Identifier: Apache-2.0
"""`DemoCluster`: a Valkey and a worker of the demonstration's own, in a directory that is gone afterwards."""

import os
import sys
import tempfile
import time
from pathlib import Path

from worker.child_process import ChildProcess
from worker.cli.cluster import Cluster
from worker.cli.exits import Failure
from worker.embedded import EmbeddedServer, new_password
from worker.errors import StateUnavailable
from worker.linux.mount import unmount_tree
from worker.linux.mountinfo import mounts_at_or_below
from worker.linux.remove import remove_tree
from worker.linux.statfs import filesystem_type
from worker.settings import Settings

NODE = "demo"
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.05
_LOG_LINES = 30


class DemoCluster:
    """One node and its Redis; `stop` leaves nothing of them.

    Attributes:
        directory: Holds everything; only this user may enter it.
        settings: What the node is told: the user's settings with names and places of its own.
        cluster: The cluster as a scheduler sees it, once the server runs.
    """

    def __init__(self, settings: Settings) -> None:
        self.directory = make_directory()
        self._server = EmbeddedServer(self.directory / "redis", password=new_password())
        self._worker: ChildProcess | None = None
        own = {"node": NODE, "cluster": "demo", "work_dir": self.directory / "work"}
        self.settings = settings.model_copy(update={**own, "store_dir": self.directory / "store"})
        self.cluster = Cluster(self.settings)

    def start_server(self) -> None:
        """Start Valkey. Raises ServerFailed."""
        self._server.start()
        self.settings = self.settings.model_copy(update={"redis_url": self._server.url})
        self.cluster = Cluster(self.settings)

    def start_worker(self) -> None:
        """Start the worker and wait until it has recovered and takes work.

        Raises:
            Failure: It ended instead, or took too long.
        """
        command = [sys.executable, "-m", "celery", "--app", "worker", "worker", "--loglevel", "INFO"]
        self._worker = ChildProcess(
            [*command, "--concurrency", "2"],
            log_path=self.directory / "worker.log",
            environment=_environment(self.settings),
            cwd=self.directory,
        )
        self._worker.start()
        deadline = time.monotonic() + _START_SECONDS
        while not _is_live(self.cluster):
            if not self._worker.is_running:
                raise Failure(f"the worker ended with {self._worker.process.returncode}")
            if time.monotonic() > deadline:
                raise Failure(f"the worker was not ready within {_START_SECONDS:g} s")
            time.sleep(_POLL_SECONDS)

    def log_tail(self) -> str:
        """Return the end of the worker's log."""
        return "" if self._worker is None else self._worker.tail(_LOG_LINES)

    def stop(self, *, keep: bool) -> None:
        """Stop everything, unmount what a failed demonstration left, and delete the directory unless it is kept.

        Effect: on return no process or mount is left. Safe to repeat.

        Raises:
            MountFailed, RemovalFailed: Something would not go.
        """
        if self._worker is not None:
            self._worker.stop(patience_seconds=_STOP_SECONDS)
        self._server.stop()
        if mounts_at_or_below(self.directory.resolve()):
            unmount_tree(self.directory)
        if not keep:
            remove_tree(self.directory)


def make_directory() -> Path:
    """Make a directory of this user's own, on a filesystem on which layers can be stacked if there is one."""
    places = [Path(place) for place in (tempfile.gettempdir(), "/var/tmp", "var")]  # noqa: S108 - mkdtemp's is private
    usable = [place for place in places if place.is_dir() and os.access(place, os.W_OK)]
    best = next((place for place in usable if filesystem_type(place) != "overlay"), usable[0])
    return Path(tempfile.mkdtemp(prefix="provisioner-demo-", dir=best.resolve()))


def _environment(settings: Settings) -> dict[str, str]:
    """Return the user's environment with names and places of the demonstration's own, and without the metrics' port.

    A worker that the user runs may have that.
    """
    users = {name: value for name, value in os.environ.items() if name != "PROVISIONER_METRICS_PORT"}
    return users | {
        "PYTHONUNBUFFERED": "1",
        "PROVISIONER_REDIS_URL": settings.redis_url,
        "PROVISIONER_CLUSTER": settings.cluster,
        "PROVISIONER_NODE": settings.node,
        "PROVISIONER_WORK_DIR": str(settings.work_dir),
        "PROVISIONER_STORE_DIR": str(settings.store_dir),
    }


def _is_live(cluster: Cluster) -> bool:
    try:
        return any(status.is_live and status.is_recovered for status in cluster.nodes.all())
    except StateUnavailable:
        return False
