# SPDX-License-Identifier: Apache-2.0
"""Redis lost its data, or came back from an old copy: what it does not show is not absent for that, the disk decides.

Each node is a provisioner of its own over a real Redis; nodes that live show themselves by real heartbeats.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.provisioners import SMALL_TREE, files, make_settings, provisioner, settle, small_layout, tree_text
from tests.support.redis_server import RedisServer
from worker.container_id import ContainerId
from worker.containers import ContainerState
from worker.epoch import Epoch
from worker.errors import StateLost, ViewIncomplete
from worker.nodes import Nodes, NodeView
from worker.provisioner import Elsewhere, Provisioner
from worker.verbs.home import Home
from worker.verbs.remount import show

pytestmark = [pytest.mark.root, pytest.mark.redis]

C1 = ContainerId.parse("c1")


def view_of(node: str, store_id: str = "s") -> NodeView:
    """Return what a node says of itself."""
    return NodeView(
        name=node,
        store_id=store_id,
        backends=("overlay",),
        layer_formats=("erofs",),
        backend="overlay",
        free_bytes=0,
        version="1",
    )


class Member:
    """A node of the cluster with its part in the registry."""

    def __init__(self, provisioner: Provisioner) -> None:
        self.provisioner = provisioner
        self.node = provisioner.node
        client = self.node.containers._client
        self.nodes = Nodes(client, self.node.settings.key_prefix, epoch=self.node.epoch)

    def beat(self) -> bool:
        """Show the node as alive; tell whether it counts as recovered."""
        view = view_of(self.node.name, self.node.store.identity)
        return self.nodes.heartbeat(view, ttl_seconds=60)

    def recover(self) -> dict[str, Any]:
        """Recover as the task does."""
        token = self.nodes.begin_recovery(self.node.name)
        answer = self.provisioner.recover({})
        assert not isinstance(answer, Elsewhere)
        assert self.nodes.mark_recovered(self.node.name, token=token)
        return answer

    def provision(self, container_id: str, image: str, **more: object) -> dict[str, Any]:
        """Provision on this node."""
        answer = self.provisioner.provision({"container_id": container_id, "image": image, **more})
        assert not isinstance(answer, Elsewhere)
        return answer

    def destroy(self, container_id: str) -> bool | Elsewhere:
        """Destroy, asked of this node."""
        return self.provisioner.destroy({"container_id": container_id})

    def settle(self) -> None:
        """Wait until Redis is believed again."""
        settle(self.provisioner)


@pytest.fixture
def members(tmp_path: Path, own_redis_server: RedisServer) -> Iterator[tuple[Member, Member]]:
    """Two nodes with a store each, alive and recovered."""
    url = own_redis_server.url
    with (
        provisioner(tmp_path / "n1", url, node="n1", heartbeat_seconds=0.05) as first,
        provisioner(tmp_path / "n2", url, node="n2", heartbeat_seconds=0.05) as second,
    ):
        made = Member(first), Member(second)
        for member in made:
            member.recover()
            member.beat()
        yield made


@pytest.fixture
def image(tmp_path: Path) -> str:
    """The reference of a small image."""
    return small_layout(tmp_path / "layout")


def empty(server: RedisServer) -> None:
    """Lose everything."""
    with server.client() as client:
        client.flushall()


def test_no_node_denies_a_container_that_another_may_have(
    members: tuple[Member, Member], image: str, own_redis_server: RedisServer
) -> None:
    """It is asked again until the other has shown it, and then sent there."""
    first, second = members
    first.provision("c1", image)
    empty(own_redis_server)

    with pytest.raises(ViewIncomplete) as caught:
        second.destroy("c1")
    with pytest.raises(ViewIncomplete):
        second.provision("c1", image)
    with pytest.raises(ViewIncomplete):
        second.provision("c1.nested", image, node="n2")

    assert caught.value.retry_after_seconds > 0
    for member in members:
        assert member.beat() is False
        member.recover()
    second.settle()
    assert second.destroy("c1") == Elsewhere(node="n1")
    assert second.provisioner.provision({"container_id": "c1.nested", "image": image}) == Elsewhere(node="n1")


def test_a_live_node_is_waited_for_by_name(
    members: tuple[Member, Member], image: str, own_redis_server: RedisServer
) -> None:
    """However long it takes to recover."""
    first, second = members
    first.provision("c1", image)
    empty(own_redis_server)
    first.beat()
    second.recover()
    while second.node.epoch.join().wait_seconds > 0:
        time.sleep(0.01)

    with pytest.raises(ViewIncomplete, match="node n1"):
        second.destroy("c1")

    first.recover()
    second.settle()
    assert second.destroy("c1") == Elsewhere(node="n1")


def test_a_node_speaks_for_its_own_disk_at_once(
    members: tuple[Member, Member], image: str, own_redis_server: RedisServer
) -> None:
    """The same answer, another rootfs in the container, a nested one, and the destroy of it all."""
    first, _ = members
    info = first.provision("c1", image)
    empty(own_redis_server)

    assert first.provision("c1", image) == info
    first.provision("c1", image, name="data")
    empty(own_redis_server)
    first.provision("c1.nested", image)
    empty(own_redis_server)
    assert first.destroy("c1") is True

    assert files(first.node.work.containers_dir) == []


def test_a_new_cluster_waits_for_nobody(tmp_path: Path, image: str, own_redis_server: RedisServer) -> None:
    """Nothing can be lost that never was."""
    with provisioner(tmp_path / "n1", own_redis_server.url, heartbeat_seconds=60) as only:
        member = Member(only)

        assert member.destroy("c1") is False
        member.provision("c1", image)
        assert member.destroy("c1") is True


def test_a_restart_that_lost_nothing_is_over_once_all_have_recovered(
    members: tuple[Member, Member], image: str, own_redis_server: RedisServer
) -> None:
    """Another run of the server may have an older copy: marks count no more, containers are as before."""
    first, second = members
    first.provision("c1", image)
    before = first.node.containers.get(C1)
    own_redis_server.stop()
    own_redis_server.start()

    assert [member.beat() for member in members] == [False, False]
    with pytest.raises(ViewIncomplete):
        second.provision("c2", image)
    for member in members:
        member.recover()
    second.settle()

    assert first.node.containers.get(C1) == before
    second.provision("c2", image)


def test_an_old_mark_does_not_destroy_the_container_that_came_after(
    members: tuple[Member, Member], image: str, own_redis_server: RedisServer, tmp_path: Path
) -> None:
    """Of the same id, also one nested in a mere parent: the record says which generation lives."""
    first, second = members
    for container_id in ("c1", "pod.a"):
        first.provision(container_id, image)
        first.node.containers.begin_destroy(ContainerId.parse(container_id).root, node="n1")
    with own_redis_server.losing(tmp_path / "copy"):
        second.recover()
        first.recover()
        first.settle()
        infos = [first.provision(container_id, image) for container_id in ("c1", "pod.a")]
        shown = [first.node.containers.get(ContainerId.parse(text)) for text in ("c1", "pod.a")]

    answer = first.recover()

    assert answer["destroyed"] == []
    assert answer["kept"] == ["c1", "pod.a"]
    for info, before in zip(infos, shown, strict=True):
        assert before is not None
        after = first.node.containers.get(before.container_id)
        assert after is not None
        assert (after.state, after.generation) == (ContainerState.PROVISIONED, before.generation)
        assert tree_text(info["rootfs"]) == SMALL_TREE
    assert first.provision("c1", image) == infos[0]


def test_a_mark_on_the_container_itself_is_carried_out(members: tuple[Member, Member], image: str) -> None:
    """Its destroyer died: nobody may have it any more."""
    first, _ = members
    first.provision("c1", image)
    first.node.containers.begin_destroy(C1, node="n1")

    assert first.recover()["destroyed"] == ["c1"]

    assert files(first.node.work.containers_dir) == []


def test_a_container_that_an_old_copy_shows_elsewhere_comes_back_where_it_is(
    members: tuple[Member, Member], image: str, own_redis_server: RedisServer, tmp_path: Path
) -> None:
    """The other node is heard first, and has it no more."""
    first, second = members
    first.provision("c1", image)
    with own_redis_server.losing(tmp_path / "copy"):
        for member in members:
            member.recover()
        first.settle()
        first.destroy("c1")
        info = second.provision("c1", image)
    for member in members:
        member.beat()

    token = second.nodes.begin_recovery("n2")
    with pytest.raises(ViewIncomplete, match="n1"):
        second.provisioner.recover({})
    first.recover()
    second.recover()
    first.settle()

    assert token
    assert first.destroy("c1") == Elsewhere(node="n2")
    assert second.provision("c1", image) == info


def test_a_node_that_is_gone_is_not_heard(tmp_path: Path, image: str, own_redis_server: RedisServer) -> None:
    """What an old copy shows of it gives way to what a disk has."""
    url = own_redis_server.url
    with provisioner(tmp_path / "n1", url, heartbeat_seconds=0.05) as gone:
        with provisioner(tmp_path / "n2", url, node="n2", heartbeat_seconds=0.05) as here:
            first, second = Member(gone), Member(here)
            first.provision("c1", image)
            with own_redis_server.losing(tmp_path / "copy"):
                first.settle()
                first.destroy("c1")
                info = second.provision("c1", image)

            with pytest.raises(ViewIncomplete, match="n1"):
                second.recover()
            second.settle()
            assert second.recover()["kept"] == ["c1"]

            assert second.provision("c1", image) == info
            assert second.node.containers.node_of(C1) == "n2"


def test_a_provision_that_redis_forgot_is_tried_again(
    members: tuple[Member, Member], image: str, own_redis_server: RedisServer
) -> None:
    """Whether in its first step or in its last: it is not taken for one whose container was destroyed."""
    first, _ = members
    first.provisioner.pull({"image": image})
    node = first.node

    for loss in ("is_current", "finish_provision"):
        with _before(node.containers, loss, lambda: empty(own_redis_server)), pytest.raises(StateLost):
            first.provision("c1", image)
        first.recover()
        first.settle()

        assert tree_text(first.provision("c1", image)["rootfs"]) == SMALL_TREE
        assert first.destroy("c1") is True


def test_a_destroy_whose_container_redis_forgets_once_more_is_tried_again(
    members: tuple[Member, Member], image: str, own_redis_server: RedisServer
) -> None:
    """Shown and lost before it could be marked, and shown again as by a recover: it is not taken for a later one."""
    first, _ = members
    first.provision("c1", image)
    empty(own_redis_server)

    containers = first.node.containers
    with ExitStack() as later:
        second_call = _before(containers, "begin_destroy", lambda: empty(own_redis_server))
        with (
            _before(containers, "begin_destroy", lambda: later.enter_context(second_call)),
            _before(containers, "get", lambda: show(first.node, C1, Home(first.node.work, C1).read())),
            pytest.raises(StateLost),
        ):
            first.destroy("c1")

    assert first.destroy("c1") is True
    assert files(first.node.work.containers_dir) == []


@contextmanager
def _before(containers: Any, method: str, happens: Any) -> Iterator[None]:
    """Let something happen once, just before the next call of a transition, which is then made as always."""
    real = getattr(containers, method)

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        delattr(containers, method)
        happens()
        return real(*arguments, **keywords)

    setattr(containers, method, interrupted)
    yield


def test_a_second_worker_leaves_provisions_of_the_first_alone(members: tuple[Member, Member], image: str) -> None:
    """One that has nothing on disk yet stays shown; at the start of an only worker it goes."""
    first, _ = members
    first.node.containers.begin_provision(C1, name="rootfs", image=image, node="n1", request="{}")

    first.provisioner.recover({}, is_start=False)
    assert first.node.containers.get(C1) is not None
    first.provisioner.recover({}, is_start=True)

    assert first.node.containers.get(C1) is None


def test_a_provision_from_before_a_loss_is_not_shown_for_ever(
    members: tuple[Member, Member], image: str, own_redis_server: RedisServer
) -> None:
    """Nothing is on disk of it, and nobody can finish it: the next recover forgets it, also beside other workers."""
    first, _ = members
    first.node.containers.begin_provision(C1, name="rootfs", image=image, node="n1", request="{}")
    own_redis_server.stop()
    own_redis_server.start()

    first.recover()

    assert first.node.containers.get(C1) is None


@pytest.mark.parametrize("is_emptied", [True, False], ids=["emptied", "another run"])
def test_once_all_that_were_there_are_back_nobody_waits(
    tmp_path: Path, own_redis_server: RedisServer, image: str, *, is_emptied: bool
) -> None:
    """Long before the quiet time is over: each node keeps on its disk who was there."""
    url = own_redis_server.url
    with (
        provisioner(tmp_path / "n1", url, node="n1", heartbeat_seconds=600) as one,
        provisioner(tmp_path / "n2", url, node="n2", heartbeat_seconds=600) as other,
    ):
        first, second = Member(one), Member(other)
        for member in (first, second, first):
            member.recover()
            member.beat()
        if is_emptied:
            empty(own_redis_server)
        else:
            own_redis_server.restart()

        first.beat()
        first.recover()
        assert not first.node.epoch.join().is_settled, "the second, which the first knows, has yet to come back"
        second.recover()

        assert first.node.epoch.join().is_settled
        first.provision("c1", image)


def test_a_newcomer_does_not_say_that_all_are_back(tmp_path: Path, own_redis_server: RedisServer) -> None:
    """It knows nobody who was there before."""
    url = own_redis_server.url
    with (
        provisioner(tmp_path / "n1", url, node="n1", heartbeat_seconds=600) as one,
        provisioner(tmp_path / "n2", url, node="n2", heartbeat_seconds=600) as other,
    ):
        first, newcomer = Member(one), Member(other)
        first.recover()
        first.beat()
        own_redis_server.restart()

        for _ in range(2):
            newcomer.recover()
            newcomer.beat()

        assert not newcomer.node.epoch.join().is_settled
        first.recover()
        assert newcomer.node.epoch.join().is_settled


def test_the_epoch_is_kept_below_the_work_directory(tmp_path: Path, redis_url: str) -> None:
    """Its mark, and nobody else as long as the node has shown itself to nobody."""
    settings = make_settings(tmp_path, redis_url)
    with provisioner(tmp_path, redis_url) as made:
        made.destroy({"container_id": "c1"})

        assert (settings.work_dir / "epoch").read_text() == made.node.epoch.join().mark


def test_thousands_of_nodes_are_remembered(tmp_path: Path, own_redis_server: RedisServer) -> None:
    """Scripts are given them, and answer with them, one by one."""
    with own_redis_server.client() as client:
        epoch = Epoch(client, "{p}", path=tmp_path / "epoch", quiet_seconds=60)
        nodes = Nodes(client, "{p}", epoch=epoch)
        client.hset("{p}:nodes", mapping={f"n{number}": "{}" for number in range(9_000)})
        nodes.heartbeat(view_of("n1"), ttl_seconds=60)
        client.flushall()

        assert not epoch.join().is_settled

        assert client.scard("{p}:epoch:peers") == 9_000


def test_a_mark_that_is_put_back_keeps_nobody_waiting(tmp_path: Path, own_redis_server: RedisServer) -> None:
    """A process of the node stood still while it wrote the mark, and wrote an older one over a newer one."""
    with own_redis_server.client() as client:
        epoch = Epoch(client, "{p}", path=tmp_path / "epoch", quiet_seconds=0.2)
        nodes = Nodes(client, "{p}", epoch=epoch)
        nodes.heartbeat(view_of("n1"), ttl_seconds=60)
        older = (tmp_path / "epoch").read_bytes()
        client.flushall()
        nodes.heartbeat(view_of("n1"), ttl_seconds=60)
        nodes.mark_recovered("n1", token=nodes.begin_recovery("n1"))
        (tmp_path / "epoch").write_bytes(older)

        for _ in range(10):
            nodes.heartbeat(view_of("n1"), ttl_seconds=60)
            time.sleep(0.1)

        assert epoch.join().is_settled


def test_a_node_that_is_forgotten_and_comes_back_does_not_take_a_container_from_a_node_that_stands_still(
    members: tuple[Member, Member], image: str, own_redis_server: RedisServer
) -> None:
    """Redis lost nothing, so what it shows is so, whoever does not show itself for a while."""
    first, second = members
    first.provision("c1", image)
    first.nodes.forget("n1")
    containers = first.node.containers
    containers.forget_absent(list(containers.list(node="n1")), kept_ids=())
    second.provision("c1", image)
    with own_redis_server.client() as client:
        client.zadd("{provisioner:default}:nodes:expiry", {"n2": 1})

    first.recover()

    assert containers.node_of(C1) == "n2"
