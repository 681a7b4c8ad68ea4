# SPDX-License-Identifier: Apache-2.0
"""Real Celery workers posing as nodes: started, stopped and killed by their test."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.ports import wait_until

REPOSITORY_DIR = Path(__file__).resolve().parents[2]
READY_SECONDS = 60.0


class Node:
    """One node: a worker with its children in a session of its own, its directories and its log.

    Attributes:
        name: As in `node=` and in the queue's name.
        app: The Celery app it serves, as `celery --app` takes it.
        env: The `PROVISIONER_*` variables it runs with; change them before `start`.
        work_dir: Its WORK_DIR.
        store_dir: Its STORE_DIR.
        log_path: What all its processes print, over restarts.
    """

    def __init__(self, name: str, directory: Path, *, redis_url: str, app: str = "worker", **env: str) -> None:
        self.name = name
        self.app = app
        self.work_dir = directory / "work"
        self.store_dir = Path(env.get("PROVISIONER_STORE_DIR", directory / "store"))
        self.log_path = directory / "worker.log"
        self.env = {
            "PROVISIONER_NODE": name,
            "PROVISIONER_REDIS_URL": redis_url,
            "PROVISIONER_WORK_DIR": str(self.work_dir),
            "PROVISIONER_STORE_DIR": str(self.store_dir),
            **env,
        }
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._seen_bytes = 0
        self._was_ready = False

    @property
    def pid(self) -> int:
        """The worker's main process, which is also its session and process group."""
        if self._process is None:
            raise RuntimeError(f"node {self.name} does not run")
        return self._process.pid

    @property
    def log(self) -> str:
        """All it has printed."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self, *options: str) -> None:
        """Start the worker and wait until it takes work; `options` go to `celery worker`.

        Raises:
            RuntimeError: When it ends instead; with the end of its log.
            TimeoutError: When it does neither.
        """
        self.launch(*options)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until it takes work; raises as `start` does."""
        wait_until(self._is_ready_or_ended, f"start of node {self.name}", seconds=READY_SECONDS)

    def launch(self, *options: str) -> None:
        """Start the worker without waiting."""
        self._directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "celery", "--app", self.app, "worker", "--loglevel", "INFO"]
        command += ["--hostname", f"{self.name}@%h", "--concurrency", "2", *options]
        with self.log_path.open("ab") as log:
            self._seen_bytes, self._was_ready = log.tell(), False
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment(), cwd=REPOSITORY_DIR, start_new_session=True
            )

    def _environment(self) -> Mapping[str, str]:
        others = {name: value for name, value in os.environ.items() if not name.startswith("PROVISIONER_")}
        return {**others, "PYTHONUNBUFFERED": "1", **self.env}

    @property
    def is_ready(self) -> bool:
        """Whether it has said since its last start that it takes work."""
        self._was_ready = self._was_ready or b" ready." in self._output()
        return self._was_ready

    @property
    def has_ended(self) -> bool:
        """Whether it does not run, be it that it ended by itself or was never started."""
        return self._process is None or self._process.poll() is not None

    def _is_ready_or_ended(self) -> bool:
        if self.has_ended:
            raise RuntimeError(f"node {self.name} ended:\n{self._output().decode(errors='replace')[-4000:]}")
        return self.is_ready

    def _output(self) -> bytes:
        return self.log_path.read_bytes()[self._seen_bytes :]

    def stop(self) -> None:
        """Stop in good order, as an operator does: finish running tasks, then end. Nothing happens if it is stopped."""
        self._end(signal.SIGTERM)

    def quit(self) -> None:
        """Stop without finishing what runs."""
        self._end(signal.SIGQUIT)

    def kill(self) -> None:
        """Kill every process of the node at once, as a crash of the machine would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop every process of the node in the middle of what it does."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused node go on."""
        os.killpg(self.pid, signal.SIGCONT)

    def tell(self, number: signal.Signals) -> None:
        """Send the worker's main process a signal and do not wait for what it makes of it."""
        os.kill(self.pid, number)

    def pool_pids(self) -> list[int]:
        """Return its children: the processes that run tasks."""
        lists = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(pid) for each in lists for pid in each.read_text().split()]

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            # The parent alone gets SIGTERM: it tells its children when they may end.
            if process.poll() is None:
                (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)
            process.wait(timeout=60)
        finally:
            kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process's group, and reap the process."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=20)


@contextmanager
def running_node(name: str, directory: Path, *, redis_url: str, **env: str) -> Iterator[Node]:
    """Run a node for the context's time; it is killed at the end if the test has not stopped it."""
    node = Node(name, directory, redis_url=redis_url, **env)
    try:
        node.start()
        yield node
    finally:
        node.kill()
