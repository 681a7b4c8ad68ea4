# SPDX-License-Identifier: Apache-2.0
"""What a provision or destroy waits for is in the container's state, and costs nothing where it need not wait."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.support.ports import wait_until
from tests.support.provisioners import small_image
from worker.container_id import ContainerId
from worker.oci.digest import Digest
from worker.provisioner import Provisioner
from worker.verbs.home import opened

pytestmark = [pytest.mark.root, pytest.mark.redis]

C1 = ContainerId.parse("c1")
Hold = Callable[[Provisioner], AbstractContextManager[object]]


def the_lock(node: Provisioner) -> AbstractContextManager[object]:
    """Prune, say."""
    return node.node.exclusive()


def the_container(node: Provisioner) -> AbstractContextManager[object]:
    """Mount another rootfs of it, say."""
    return opened(node.node.work, C1)


@contextmanager
def a_layer(node: Provisioner) -> Iterator[None]:
    """Pull the same, say."""
    layer_format = node.node.layer_format(node.node.default_backend)
    diff_id = Digest.parse(small_image().diff_ids[0])
    with node.node.store.layers.stage(diff_id, layer_format=layer_format):
        yield


def waits_for(node: Provisioner) -> str:
    """Return what is shown."""
    view = node.node.containers.get(C1)
    return view.waits_for if view is not None else ""


@pytest.mark.parametrize(
    ("hold", "shown"),
    [
        (the_lock, "the cluster lock"),
        (the_container, "another task of the container"),
        (a_layer, "another pull of layer sha256:"),
    ],
)
def test_a_provision_says_what_it_waits_for(node: Provisioner, image: str, hold: Hold, shown: str) -> None:
    """While it does."""
    with ThreadPoolExecutor() as pool:
        with hold(node):
            answer = pool.submit(node.provision, {"container_id": "c1", "image": image})
            wait_until(lambda: waits_for(node).startswith(shown), shown)

        wait_until(lambda: waits_for(node) == "", "the end of the wait")
        answer.result(timeout=20)


@pytest.mark.parametrize(
    ("hold", "shown"), [(the_lock, "the cluster lock"), (the_container, "another task of the container")]
)
def test_a_destroy_says_what_it_waits_for(node: Provisioner, image: str, hold: Hold, shown: str) -> None:
    """While it does."""
    node.provision({"container_id": "c1", "image": image})
    with ThreadPoolExecutor() as pool:
        with hold(node):
            answer = pool.submit(node.destroy, {"container_id": "c1"})
            wait_until(lambda: waits_for(node) == shown, shown)

        assert answer.result(timeout=20) is True


def test_whoever_need_not_wait_says_nothing(node: Provisioner, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round trip more for nothing."""

    def noted(*_: object, **__: object) -> None:
        raise AssertionError("a wait was noted")

    monkeypatch.setattr(node.node.containers, "note_wait", noted)

    node.provision({"container_id": "c1", "image": image})
    assert node.destroy({"container_id": "c1"}) is True
