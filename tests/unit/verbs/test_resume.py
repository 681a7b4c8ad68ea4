# SPDX-License-Identifier: Apache-2.0
"""A pull that did not get to its end: the next one asks for the rest only, and what was kept is never believed."""

import os
import random
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.images import build_image, layer
from tests.support.mounts import unmount
from tests.support.provisioners import files, make_settings, provisioner
from tests.support.registry_server import Registry
from tests.support.tar import File
from tests.unit.registry.odd_server import Answer, Asked, OddServer, odd_server
from worker.errors import DigestMismatch, RegistryUnavailable
from worker.linux.mount import Mount, Option, mount_filesystem
from worker.oci.digest import Digest
from worker.provisioner import Elsewhere, Progress, Provisioner
from worker.runtime import make_provisioner
from worker.settings import MIB

pytestmark = [pytest.mark.root, pytest.mark.redis]

IMAGE = build_image([layer(File("large", random.Random(5).randbytes(6 * MIB)))])
BLOB = IMAGE.layer_blobs[0]
KEPT_BYTES = 3 * MIB


@pytest.fixture
def node(tmp_path: Path, redis_url: str, layer_format: str) -> Iterator[Provisioner]:
    """A node that keeps blobs from 1 MiB on, and asks once."""
    with provisioner(tmp_path, redis_url, layer_format=layer_format, resume_min_bytes=MIB, registry_attempts=1) as made:
        yield made


@pytest.fixture
def server() -> Iterator[OddServer]:
    """A registry that answers as told."""
    with odd_server() as running:
        yield running


def serve_image(server: OddServer, *answers: Answer | Callable[[Asked], Answer]) -> str:
    """Serve the image, its layer as told, and return its reference."""
    server.on("/v2/a/manifests/1", Answer(body=IMAGE.manifest.content))
    server.on(f"/v2/a/blobs/{IMAGE.config.digest}", Answer(body=IMAGE.config.content))
    server.on(f"/v2/a/blobs/{BLOB.digest}", *answers)
    return f"{server.host}/a:1"


def ranged(asked: Asked) -> Answer:
    """Answer as a registry that supports ranges."""
    match = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("range", ""))
    if match is None:
        return Answer(body=BLOB.content)
    start, size = int(match[1]), len(BLOB.content)
    return Answer(status=206, headers={"Content-Range": f"bytes {start}-{size - 1}/{size}"}, body=BLOB.content[start:])


def ranges(server: OddServer) -> list[str | None]:
    """Return the ranges in which the layer was asked for."""
    return [asked.headers.get("range") for asked in server.asked_for(f"/v2/a/blobs/{BLOB.digest}")]


def pulled(node: Provisioner, image: str) -> int:
    """Pull, make sure that the layer is there and nothing else, and return the bytes that were fetched."""
    answer = node.pull({"image": image})
    assert not isinstance(answer, Elsewhere)
    paths = node.node.store.paths
    assert files(paths.partial_dir) == files(paths.staging_dir) == []
    assert [str(diff_id) for _, diff_id in node.node.store.layers.committed()] == IMAGE.diff_ids
    return int(answer["bytes_fetched"])


def partial_path(node: Provisioner) -> Path:
    """Return where the layer's beginning is kept."""
    return node.node.store.paths.partial_dir / BLOB.digest


def pull_killed(node: Provisioner, image: str) -> None:
    """Pull in a child that dies by SIGKILL once it has taken three mebibytes."""
    work_killed(node, lambda again, die: again.pull({"image": image}, on_progress=die))


def work_killed(node: Provisioner, work: Callable[[Provisioner, Callable[[Progress], None]], object]) -> None:
    """Work in a child that dies by SIGKILL once it has taken three mebibytes."""
    settings = node.node.settings

    def die(progress: Progress) -> None:
        if progress.bytes_fetched >= KEPT_BYTES:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            work(make_provisioner(settings), die)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


@pytest.mark.registry
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_killed_pull_goes_on_where_it_was(node: Provisioner, registry: Registry, layer_format: str) -> None:
    """The real registry's log shows that the second attempt was sent the rest and no more."""
    image = registry.push(f"resume/{layer_format}", "v1", IMAGE)
    seen: list[Progress] = []

    pull_killed(node, image)
    kept_bytes = partial_path(node).stat().st_size
    answer = node.pull({"image": image}, on_progress=seen.append)

    assert not isinstance(answer, Elsewhere)
    assert kept_bytes == KEPT_BYTES
    assert answer["bytes_fetched"] == len(BLOB.content) - kept_bytes
    assert seen[-1].bytes_fetched == seen[-1].bytes_total == len(BLOB.content)
    log = registry.log_path.read_text(errors="replace")
    sent = re.findall(rf'"GET /v2/resume/{layer_format}/blobs/{BLOB.digest} HTTP/1.1" (\d+) (\d+)', log)
    assert ("206", str(len(BLOB.content) - kept_bytes)) == sent[-1]
    assert files(node.node.store.paths.partial_dir) == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_provision_that_is_taken_back_keeps_nothing_for_another_attempt(node: Provisioner, server: OddServer) -> None:
    """There will be none; what somebody else adds to by now stays."""
    image = serve_image(server, Answer(body=BLOB.content))
    keywords = {"container_id": "c1", "image": image}
    work_killed(node, lambda again, die: again.provision(keywords, on_progress=die))
    assert partial_path(node).stat().st_size == KEPT_BYTES

    with node.node.store.partials.hold(Digest.parse(BLOB.digest), size_bytes=len(BLOB.content)):
        node.take_back(keywords)
        assert partial_path(node).exists()
    node.provision(keywords)
    node.destroy({"container_id": "c1"})
    node.prune({})
    work_killed(node, lambda again, die: again.provision(keywords, on_progress=die))
    node.take_back(keywords)

    paths = node.node.store.paths
    assert files(paths.partial_dir) == files(paths.staging_dir) == []


def test_a_broken_off_pull_goes_on_where_it_was(node: Provisioner, server: OddServer) -> None:
    """The task's retry is sent the rest only."""
    image = serve_image(server, Answer(body=BLOB.content, cut_after=KEPT_BYTES), ranged)

    with pytest.raises(RegistryUnavailable):
        node.pull({"image": image})
    fetched = pulled(node, image)

    assert fetched == len(BLOB.content) - KEPT_BYTES
    assert ranges(server)[-1] == f"bytes={KEPT_BYTES}-"


@pytest.mark.parametrize("kept_bytes", [KEPT_BYTES, len(BLOB.content)])
@pytest.mark.parametrize("torn_at", [0, 1000, KEPT_BYTES - 4096])
def test_a_torn_part_costs_one_start_from_the_first_byte(
    node: Provisioner, server: OddServer, torn_at: int, kept_bytes: int
) -> None:
    """After power loss some of its pages may be zeros; the pull succeeds all the same."""
    content = bytearray(BLOB.content[:kept_bytes])
    content[torn_at : torn_at + 4096] = bytes(4096)
    partial_path(node).write_bytes(content)
    image = serve_image(server, ranged)

    pulled(node, image)

    assert ranges(server)[-1] is None
    assert len(ranges(server)) <= 2


def test_what_is_kept_whole_is_not_asked_for(node: Provisioner, server: OddServer) -> None:
    """The worker died between the last byte and the commit."""
    partial_path(node).write_bytes(BLOB.content)
    image = serve_image(server, ranged)

    assert pulled(node, image) == 0
    assert ranges(server) == []


def test_a_wrong_blob_leaves_nothing(node: Provisioner, server: OddServer) -> None:
    """Nothing came from disk, so nothing is tried again."""
    image = serve_image(server, Answer(body=BLOB.content[:-1] + b"x"))

    with pytest.raises(DigestMismatch):
        node.pull({"image": image})

    assert ranges(server) == [None]
    assert files(node.node.store.paths.partial_dir) == []


def test_a_part_that_somebody_else_adds_to_is_left_alone(node: Provisioner, server: OddServer) -> None:
    """The layer in another format, say: this one is streamed without keeping."""
    image = serve_image(server, ranged)

    with node.node.store.partials.hold(Digest.parse(BLOB.digest), size_bytes=len(BLOB.content)) as held:
        assert held is not None
        list(held.keeping(iter([BLOB.content[:100]])))
        node.pull({"image": image})

    assert ranges(server) == [None]
    assert partial_path(node).stat().st_size == 100


def test_small_blobs_are_not_kept(tmp_path: Path, redis_url: str, server: OddServer, layer_format: str) -> None:
    """They cost less to fetch than to keep."""
    image = serve_image(server, Answer(body=BLOB.content, cut_after=KEPT_BYTES))
    settings = make_settings(tmp_path, redis_url, layer_format=layer_format, registry_attempts=1)
    node = make_provisioner(settings)

    with pytest.raises(RegistryUnavailable):
        node.pull({"image": image})

    assert files(node.node.store.paths.partial_dir) == []


@pytest.mark.parametrize("verb", ["recover", "prune"])
def test_what_nobody_came_for_goes(node: Provisioner, verb: str) -> None:
    """With the next recover or prune, once it is a day old."""
    young = node.node.store.paths.partial_dir / str(Digest.of(b"young"))
    for path in (partial_path(node), young):
        path.write_bytes(b"x" * 5000)
    os.utime(partial_path(node), (1, 1))

    answer = node.prune({}) if verb == "prune" else node.recover({})

    assert not isinstance(answer, Elsewhere)
    assert answer.get("bytes_freed", 5000) == 5000
    assert files(node.node.store.paths.partial_dir) == [young.name]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem that has room for the layer or for its blob, but not for both."""
    (tmp_path / "store").mkdir()
    tmpfs = Mount(fs_type="tmpfs", source="tmpfs", target=tmp_path / "store", options=(Option("size", "9m"),))
    mount_filesystem(tmpfs)
    yield tmp_path
    unmount([str(tmp_path / "store")])


def test_what_is_kept_never_takes_the_room_of_the_layer(small_disk: Path, redis_url: str, server: OddServer) -> None:
    """Whichever of the two meets the full disk, the pull succeeds as it would have without keeping anything."""
    image = serve_image(server, ranged)
    settings = make_settings(
        small_disk, redis_url, layer_format="directory", backend="copy", resume_min_bytes=MIB, registry_attempts=1
    )
    node = make_provisioner(settings)

    assert pulled(node, image) > 0
    node.prune({})
    partial_path(node).write_bytes(BLOB.content[: 5 * MIB])
    pulled(node, image)

    # Where the layer met it, everything was asked for once more; where the kept blob did, the rest was enough.
    assert ranges(server)[-1] in (None, "bytes=5242880-")
    assert "bytes=5242880-" in ranges(server)
