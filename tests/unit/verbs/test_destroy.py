# SPDX-License-Identifier: Apache-2.0
"""destroy: nothing is left, whatever was there, and whoever else works on it."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import redis

from tests.support.mounts import mounts_below
from tests.support.provisioners import files, keys, small_layout
from worker.container_id import ContainerId
from worker.container_view import ContainerState
from worker.errors import ContainerDestroying
from worker.oci.descriptor import Descriptor
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource, Transport
from worker.provisioner import Provisioner
from worker.puller import Credential, Puller, RemoteImage
from worker.verbs.destroy import destroy_all

pytestmark = [pytest.mark.root, pytest.mark.redis]


def _refs(node: Provisioner) -> list[Path]:
    return [path for digest in node.node.store.images.digests() for path, _ in node.node.store.images.refs(digest)]


def _assert_nothing_left(node: Provisioner, client: redis.Redis) -> None:
    assert mounts_below(node.node.work.work_dir) == []
    assert files(node.node.work.containers_dir) == []
    assert files(node.node.work.trash_dir) == []
    assert keys(client) == set()
    assert _refs(node) == []


def test_no_such_container_is_false(node: Provisioner) -> None:
    """Not an error: a scheduler may clean up twice."""
    assert node.destroy({"container_id": "c1"}) is False


def test_everything_goes(node: Provisioner, image: str, redis_client: redis.Redis) -> None:
    """Mounts, directories, refs and hashes; the second time there is nothing to do."""
    node.provision({"container_id": "c1", "image": image})
    node.provision({"container_id": "c1", "image": image, "name": "data", "read_only": True})
    node.provision({"container_id": "c1", "image": image, "name": "copied", "backend": "copy"})

    assert node.destroy({"container_id": "c1"}) is True

    _assert_nothing_left(node, redis_client)
    assert node.destroy({"container_id": "c1"}) is False


def test_children_go_with_their_parent_and_not_the_other_way(
    node: Provisioner, image: str, redis_client: redis.Redis
) -> None:
    """Any depth; a sibling whose name begins the same stays."""
    for container_id in ("pod", "pod.a", "pod.a.b", "pod.c", "pod2"):
        node.provision({"container_id": container_id, "image": image})

    assert node.destroy({"container_id": "pod.a"}) is True
    assert len(mounts_below(node.node.work.containers_dir)) == 3
    assert node.destroy({"container_id": "pod"}) is True
    assert len(mounts_below(node.node.work.containers_dir)) == 1
    assert node.destroy({"container_id": "pod2"}) is True

    _assert_nothing_left(node, redis_client)


def test_a_rootfs_in_use_goes_too(node: Provisioner, image: str, redis_client: redis.Redis) -> None:
    """The open file lives on for its holder, the mount does not."""
    answer = node.provision({"container_id": "c1", "image": image})

    with (Path(answer["rootfs"]) / "new").open() as stream:  # type: ignore[index]
        assert node.destroy({"container_id": "c1"}) is True

        assert stream.read() == "hello"
    _assert_nothing_left(node, redis_client)


def test_the_disk_is_enough(node: Provisioner, image: str, redis_client: redis.Redis) -> None:
    """A container that Redis has forgotten is destroyed all the same."""
    node.provision({"container_id": "pod.a", "image": image})
    redis_client.flushall()

    assert node.destroy({"container_id": "pod"}) is True

    _assert_nothing_left(node, redis_client)


def test_a_corrupt_record_does_not_keep_a_container(
    node: Provisioner, image: str, redis_client: redis.Redis, layer_format: str
) -> None:
    """Without a record whatever is mounted there goes; the ref, and the image's mount, fall to the next recover."""
    node.provision({"container_id": "c1", "image": image})
    node.node.work.record_path(("c1",)).write_bytes(b"{")

    assert node.destroy({"container_id": "c1"}) is True

    assert node.recover({})["cleaned"] == (2 if layer_format == "erofs" else 1)  # type: ignore[index]
    _assert_nothing_left(node, redis_client)


def test_destroys_at_once_join(node: Provisioner, image: str, redis_client: redis.Redis) -> None:
    """None fails, nothing is left."""
    node.provision({"container_id": "pod.a", "image": image})
    answers: list[object] = []
    threads = [threading.Thread(target=lambda: answers.append(node.destroy({"container_id": "pod"}))) for _ in range(6)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 6
    assert True in answers
    _assert_nothing_left(node, redis_client)


class _SlowPuller(Puller):
    """Waits in the middle of a blob: a source, as slow as a test needs it."""

    transports: ClassVar[frozenset[Transport]] = frozenset({Transport.OCI})

    def __init__(self, inner: Puller) -> None:
        self._inner = inner
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def open(
        self, source: ImageSource, *, platform: Platform, credential: Credential | None
    ) -> AbstractContextManager[RemoteImage]:
        return self._slowed(source, platform, credential)

    @contextmanager
    def _slowed(self, source: ImageSource, platform: Platform, credential: Credential | None) -> Iterator[RemoteImage]:
        with self._inner.open(source, platform=platform, credential=credential) as remote:
            original = remote.blob

            @contextmanager
            def blob(descriptor: Descriptor, *, offset: int = 0) -> Iterator[Iterator[bytes]]:
                with original(descriptor) as chunks:
                    yield self._pausing(chunks)

            remote.blob = blob  # type: ignore[method-assign]
            yield remote

    def _pausing(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield chunk[:10]
            self.reached.set()
            assert self.go_on.wait(30)
            for position in range(10, len(chunk), 10):
                yield chunk[position : position + 10]


def test_a_destroy_wins_over_a_pull_under_way(node: Provisioner, tmp_path: Path, redis_client: redis.Redis) -> None:
    """The destroy does not wait for the pull; the pull notices, stops, and leaves nothing."""
    image = small_layout(tmp_path / "layout")
    puller = _SlowPuller(node.node.pullers[Transport.OCI])
    slow = Provisioner(replace(node.node, pullers={Transport.OCI: puller}))
    errors: list[BaseException] = []

    def run() -> None:
        try:
            slow.provision({"container_id": "c1", "image": image})
        except ContainerDestroying as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert puller.reached.wait(30)

    assert node.destroy({"container_id": "c1"}) is True
    _assert_nothing_left(node, redis_client)
    puller.go_on.set()
    thread.join()

    assert [type(error) for error in errors] == [ContainerDestroying]
    _assert_nothing_left(node, redis_client)
    assert files(node.node.store.paths.staging_dir) == []


def test_a_prune_does_not_wait_for_a_pull_and_spares_what_it_pulls(node: Provisioner, tmp_path: Path) -> None:
    """The pin protects layers that are committed before their image is complete."""
    image = small_layout(tmp_path / "layout")
    puller = _SlowPuller(node.node.pullers[Transport.OCI])
    slow = Provisioner(replace(node.node, pullers={Transport.OCI: puller}))
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(slow.pull({"image": image})))
    thread.start()
    assert puller.reached.wait(30)

    pruned = node.prune({})
    puller.go_on.set()
    thread.join()

    assert pruned["images"] == []  # type: ignore[index]
    assert len(answers) == 1
    assert len(list(node.node.store.layers.committed())) == 2


def test_a_destroy_that_stood_still_leaves_the_next_container_alone_that_has_nothing_on_disk_yet(
    node: Provisioner, image: str
) -> None:
    """Another destroy was faster, and the id is being provisioned again: what stood still has nothing to do."""
    container_id = ContainerId.parse("c1")
    containers = node.node.containers
    node.provision({"container_id": "c1", "image": image})
    marked = containers.begin_destroy(container_id, node="n1")
    assert node.destroy({"container_id": "c1"}) is True
    containers.begin_provision(container_id, name="rootfs", image=image, node="n1", request="{}")

    destroy_all(node.node, container_id, [container_id], epoch=marked.epoch)

    view = containers.get(container_id)
    assert view is not None
    assert view.state is ContainerState.PROVISIONING
    assert node.destroy({"container_id": "c1"}) is True
