# SPDX-License-Identifier: Apache-2.0
"""A Docker Engine of its own, for real: no bridge, no firewall rules, nothing shared with an Engine of the host."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker

from tests.support.mounts import mounts_below, unmount
from tests.support.ports import wait_for_server

STOP_SECONDS = 30


@dataclass(frozen=True)
class Engine:
    """A running Engine.

    Attributes:
        host: Its address, as DOCKER_HOST has it.
        pid: Of the daemon.
    """

    host: str
    pid: int

    def load(self, archive_path: Path) -> None:
        """Load a `docker save` archive."""
        with docker_client(self.host) as client, archive_path.open("rb") as archive:
            client.images.load(archive)

    def image_id(self, name: str) -> str:
        """Return an image's id."""
        with docker_client(self.host) as client:
            return str(client.images.get(name).id)


@contextmanager
def docker_client(host: str) -> Iterator[docker.DockerClient]:
    """Give a client that is closed at the end."""
    client = docker.DockerClient(base_url=host)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def engine_server(directory: Path, *, storage_driver: str = "vfs") -> Iterator[Engine]:
    """Run an Engine for the context's time; `directory` exists, is its own, and has a short path: a socket is in it.

    `vfs` works everywhere and copies the whole image twice for each container; `overlay2` does not.
    """
    socket_path, log_path = directory / "docker.sock", directory / "dockerd.log"
    host = f"unix://{socket_path}"
    with log_path.open("ab") as log:
        process = subprocess.Popen(engine_command(directory, host, storage_driver), stdout=log, stderr=log)
    try:
        wait_for_server(process, lambda: answers(socket_path), log_path=log_path)
        yield Engine(host, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=STOP_SECONDS)
        unmount(mounts_below(directory))


def engine_command(directory: Path, host: str, storage_driver: str) -> list[str]:
    """Return the daemon's command line."""
    options = {
        "host": host,
        "data-root": directory / "data",
        "exec-root": directory / "exec",
        "pidfile": directory / "docker.pid",
        "storage-driver": storage_driver,
        "iptables": "false",
        "bridge": "none",
        "log-level": "warn",
    }
    return ["dockerd", *(f"--{name}={value}" for name, value in options.items())]


def answers(socket_path: Path) -> bool:
    """Tell whether an Engine answers; asked without the SDK, which leaks the sockets of failed connections."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(socket_path))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
        except OSError:
            return False
