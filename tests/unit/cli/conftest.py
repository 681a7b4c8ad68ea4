# SPDX-License-Identifier: Apache-2.0
"""Runs commands in this process, as the shell sees them."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from worker.cli import main
from worker.cli.cluster import Cluster
from worker.nodes import Nodes, NodeView
from worker.settings import Settings


@dataclass(frozen=True)
class Shell:
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output, which is one JSON document."""
        return json.loads(self.out)


Run = Callable[..., Shell]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs `provisioner` with some arguments."""

    def run(*arguments: str) -> Shell:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        captured = capsys.readouterr()
        return Shell(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def cluster(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster without nodes, which commands reach by their environment."""
    monkeypatch.setenv("PROVISIONER_REDIS_URL", redis_url)
    cluster = Cluster(Settings(redis_url=redis_url))
    yield cluster
    cluster.client.close()
    cluster.app.close()


@dataclass(frozen=True)
class Taken:
    """A task as a worker finds it in the queue."""

    task_id: str
    name: str
    arguments: list[Any]
    keywords: dict[str, Any]


def take_task(client: redis.Redis) -> Taken:
    """Take the next task from the queue `provision`, in the format of Celery's protocol 2 over Redis."""
    found: Any = client.brpop(["provision"], timeout=4)
    assert found is not None, "no task came"
    message = json.loads(found[1])
    arguments, keywords, _ = json.loads(base64.b64decode(message["body"]))
    return Taken(message["headers"]["id"], message["headers"]["task"], arguments, keywords)


def show_node(nodes: Nodes, name: str, *, store_id: str = "1234567890abcdef") -> None:
    """Let a node show itself as alive; no worker is behind it."""
    view = NodeView(
        name=name,
        store_id=store_id,
        backends=("overlay", "copy"),
        layer_formats=("directory",),
        backend="overlay",
        free_bytes=5_000_000_000,
        version="0.1.0",
    )
    nodes.heartbeat(view, ttl_seconds=60)
