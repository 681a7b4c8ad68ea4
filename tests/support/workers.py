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
        env: The `PROVISIONER_*` variables it runs with; change them before `start`.
        work_dir: Its WORK_DIR.
        store_dir: Its STORE_DIR.
        log_path: What all its processes print, over restarts.
    """

    def __init__(self, name: str, directory: Path, *, redis_url: str, **env: str) -> None:
        self.name = name
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
        self._directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "celery", "--app", "worker", "worker", "--loglevel", "INFO"]
        command += ["--hostname", f"{self.name}@%h", "--concurrency", "2", *options]
        with self.log_path.open("ab") as log:
            seen_bytes = log.tell()
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment(), cwd=REPOSITORY_DIR, start_new_session=True
            )
        wait_until(lambda: self._is_ready(seen_bytes), f"start of node {self.name}", seconds=READY_SECONDS)

    def _environment(self) -> Mapping[str, str]:
        others = {name: value for name, value in os.environ.items() if not name.startswith("PROVISIONER_")}
        return {**others, "PYTHONUNBUFFERED": "1", **self.env}

    def _is_ready(self, seen_bytes: int) -> bool:
        output = self.log_path.read_bytes()[seen_bytes:]
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"node {self.name} ended:\n{output.decode(errors='replace')[-4000:]}")
        return b" ready." in output

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

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            # The parent alone gets SIGTERM: it tells its children when they may end.
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
