# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus that reads some workers, and what it answers to queries."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.ports import free_port, is_listening, wait_for_server

_CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: provisioner
    static_configs: [{{targets: {targets}}}]
"""


class QueryRefused(Exception):
    """Prometheus cannot evaluate an expression; the message is its own."""


class Prometheus:
    """One server process.

    Attributes:
        port: Of 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    def query(self, expression: str) -> list[Mapping[str, Any]]:
        """Return the series an expression has now, each with `metric` and `value`.

        Raises:
            QueryRefused: It is none.
        """
        answer = json.loads(self._get(f"/api/v1/query?{urlencode({'query': expression})}")[1])
        if answer["status"] != "success":
            raise QueryRefused(f"{expression}: {answer['error']}")
        result: list[Mapping[str, Any]] = answer["data"]["result"]
        return result

    def is_ready(self) -> bool:
        """Tell whether it answers queries; a port that an Engine publishes is open before anybody listens behind it."""
        try:
            return is_listening(self.port) and self._get("/-/ready")[0] == HTTPStatus.OK
        except (OSError, HTTPException):
            return False

    def _get(self, path: str) -> tuple[int, bytes]:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()


@contextmanager
def prometheus_server(directory: Path, worker_ports: Sequence[int]) -> Iterator[Prometheus]:
    """Run a server in the directory that reads the workers at these ports every second."""
    directory.mkdir()
    targets = json.dumps([f"127.0.0.1:{port}" for port in worker_ports])
    (directory / "prometheus.yml").write_text(_CONFIG.format(targets=targets), encoding="ascii")
    server, log_path = Prometheus(free_port()), directory / "log"
    command = [
        "prometheus",
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{server.port}",
    ]
    with log_path.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=directory) as process:
        try:
            wait_for_server(process, server.is_ready, log_path=log_path)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
