# SPDX-License-Identifier: Apache-2.0
"""Archives at URLs through the queue: fsspec's own thread and loop in the children of a real worker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import NODE_SETTINGS
from tests.support.layouts import legacy_archive_entries
from tests.support.provisioners import SMALL_TREE, files, small_image, tree_text
from tests.support.redis_server import RedisServer
from tests.support.schedulers import Scheduler
from tests.support.tar import tar_bytes
from tests.support.workers import Node, running_node
from tests.unit.registry.odd_server import Answer, OddServer, odd_server

pytestmark = [pytest.mark.root, pytest.mark.redis]


@pytest.fixture
def server() -> Iterator[OddServer]:
    """A web server with archives from before Docker 1.10."""
    with odd_server() as running:
        for number in range(4):
            entries = legacy_archive_entries({"demo:1": small_image()}, more={"author": f"author {number}"})
            running.on(f"/{number}.tar", Answer(body=tar_bytes(entries)))
        yield running


@pytest.fixture
def node(tmp_path: Path, own_redis_server: RedisServer) -> Iterator[Node]:
    """A node that takes archives over plain HTTP."""
    more = {**NODE_SETTINGS, "PROVISIONER_ARCHIVE_PROTOCOLS": "http", "PROVISIONER_REGISTRY_ATTEMPTS": "1"}
    with running_node("n1", tmp_path / "n1", redis_url=own_redis_server.url, **more) as made:
        yield made


def test_archives_at_urls_become_rootfses_in_every_child(node: Node, scheduler: Scheduler, server: OddServer) -> None:
    """Several at once, again after a restart; the answer has the v1 image manifest, and nothing is left."""
    images = [f"docker-archive:{server.url}/{number}.tar:demo:1" for number in range(4)]
    sent = [scheduler.send("provision", container_id=f"c{number}", image=image) for number, image in enumerate(images)]

    for number, result in enumerate(sent):
        info = result.get(timeout=90)
        assert tree_text(info["rootfs"]) == SMALL_TREE
        assert info["docker_manifest"]["author"] == f"author {number}"
        assert info["image"] == f"docker-archive:{server.url}/{number}.tar:docker.io/library/demo:1"
    node.stop()
    node.start()
    asked = len(server.asked)
    assert scheduler.call("pull", image=images[0])["bytes_fetched"] == 0
    assert len(server.asked) == asked, "it is in the store"
    assert scheduler.call("pull", image=images[0], cached=False)["digest"]
    assert len(server.asked) == asked + 1

    with pytest.raises(Exception, match="not among PROVISIONER_ARCHIVE_PROTOCOLS, which are: http"):
        scheduler.call("pull", image="docker-archive:file:///etc/passwd")
    for number in range(4):
        assert scheduler.call("destroy", container_id=f"c{number}")
    scheduler.call("prune")
    for name in ("images", "references", "staging", "trash"):
        assert files(node.store_dir / name) == []
