# SPDX-License-Identifier: Apache-2.0
"""No credential leaves the node: whatever goes well or wrong with one, a worker neither writes nor sends it."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.conftest import NODE_SETTINGS
from tests.support.ports import free_port, wait_until
from tests.support.provisioners import SMALL_TREE, small_image, tree_text
from tests.support.redis_server import RedisServer
from tests.support.registry_server import PASSWORD, USERNAME, Registry
from tests.support.schedulers import Scheduler
from tests.support.workers import Node

pytestmark = [pytest.mark.root, pytest.mark.redis, pytest.mark.registry]

PLACES = ("file", "mounted", "variable", "hash")
MALFORMED = "canary-malformed-31c9"
_END = "the-end-of-this-watch"


def canary(place: str) -> str:
    """Return the password that a place has for a user the registry does not know."""
    return f"canary-{place}-77ab"


def pair(username: str, password: str) -> str:
    """Return a secret."""
    return json.dumps({"username": username, "password": password})


def needles() -> list[bytes]:
    """Return every credential, plain and as it goes over the wire."""
    pairs = [(USERNAME, PASSWORD), *(("nobody", canary(place)) for place in PLACES)]
    basic = [base64.b64encode(f"{username}:{password}".encode()).rstrip(b"=") for username, password in pairs]
    return [*basic, *(password.encode() for _, password in pairs), MALFORMED.encode()]


@contextmanager
def watched(server: RedisServer) -> Iterator[list[str]]:
    """Collect every command that anybody sends to Redis: tasks, events, results, states."""
    seen: list[str] = []
    with server.client() as client, client.monitor() as monitor:

        def listen() -> None:
            for command in monitor.listen():
                seen.append(str(command["command"]))
                if _END in seen[-1]:
                    return

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            with server.client() as other:
                other.echo(_END)
            thread.join(timeout=20)


@pytest.fixture
def node(tmp_path: Path, own_redis_server: RedisServer) -> Iterator[Node]:
    """A node that says all it can, with secrets in every place."""
    secrets_dir = tmp_path / "secrets"
    (secrets_dir / "mounted").mkdir(parents=True)
    (secrets_dir / "good").write_text(pair(USERNAME, PASSWORD))
    (secrets_dir / "file").write_text(pair("nobody", canary("file")))
    (secrets_dir / "malformed").write_text(f'{{"username": "{MALFORMED}')
    (secrets_dir / "mounted" / "username").write_text("nobody")
    (secrets_dir / "mounted" / "password").write_text(canary("mounted"))
    with own_redis_server.client() as client:
        client.hset("provisioner-secrets:default", "hash", pair("nobody", canary("hash")))
    more = {
        "PROVISIONER_SECRETS_RESOLVERS": "directory,environment,redis",
        "PROVISIONER_SECRETS_DIR": str(secrets_dir),
        "PROVISIONER_SECRETS_REDIS_URL": own_redis_server.url,
        "PROVISIONER_SECRET_VARIABLE": pair("nobody", canary("variable")),
        "PROVISIONER_REGISTRY_ATTEMPTS": "1",
        "PROVISIONER_MAX_RETRIES": "1",
    }
    made = Node("n1", tmp_path / "n1", redis_url=own_redis_server.url, **NODE_SETTINGS, **more)
    try:
        made.start("--loglevel", "DEBUG", "--task-events")
        yield made
    finally:
        made.kill()


def test_no_credential_is_told_logged_sent_or_stored(
    node: Node, scheduler: Scheduler, own_redis_server: RedisServer, private_registry: Registry
) -> None:
    """With a secret that opens the image, one that is refused, from every place, one that is none, and nobody there."""
    image = private_registry.push("kept/image", "1", small_image())
    answers: list[str] = []

    def refused(error: str, **keywords: str) -> None:
        for task in ({"task": "pull"}, {"task": "provision", "container_id": "c1"}):
            with pytest.raises(Exception, match=error) as caught:
                scheduler.call(**task, **keywords)
            answers.append(repr(caught.value))

    with watched(own_redis_server) as commands:
        info = scheduler.call("provision", container_id="good", image=image, secret="good")  # noqa: S106 - a name
        answers.append(json.dumps(info))
        for place in PLACES:
            refused("access to", image=image, secret=place)
        refused("it is not JSON", image=image, secret="malformed")  # noqa: S106 - a name
        refused("is unavailable", image=f"127.0.0.1:{free_port()}/a/b:1", secret="file")  # noqa: S106 - a name

    assert tree_text(info["rootfs"]) == SMALL_TREE
    paths = [path for each in (node.store_dir, node.work_dir) for path in each.rglob("*") if path.is_file()]
    told = {
        "answers": "\n".join(answers).encode(),
        "commands": "\n".join(commands).encode(),
        "log": node.log_path.read_bytes(),
        **{str(path): path.read_bytes() for path in paths},
    }
    assert len(commands) > 100
    assert "provisioner.pull" in node.log
    assert [(place, needle) for place, text in told.items() for needle in needles() if needle in text] == []
    assert scheduler.call("destroy", container_id="good")
    scheduler.call("prune")


def test_the_watch_sees_what_is_sent(own_redis_server: RedisServer) -> None:
    """Or the test above would find nothing because it does not look."""
    with watched(own_redis_server) as commands, own_redis_server.client() as client:
        client.publish("celeryev", canary("file"))
        wait_until(lambda: any(canary("file") in command for command in commands), "the command to be seen")
