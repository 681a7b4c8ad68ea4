# SPDX-License-Identifier: Apache-2.0
"""What people see."""

import io

import pytest
from rich.console import Console, RenderableType

from worker.cli.stored import ReferenceView, StoredImageView, StoreView
from worker.cli.tables import containers_table, facts, images_table, lock_table, nodes_table, provisioned_table
from worker.container_id import ContainerId
from worker.container_view import ContainerState, ContainerView
from worker.lock import LockMode, LockView, Party
from worker.nodes import NodeStatus, NodeView
from worker.store.images import RefOwner


def text_of(renderable: RenderableType) -> str:
    """Return what a pipe gets."""
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def container(**attributes: object) -> ContainerView:
    """Return a container with defaults."""
    defaults: dict[str, object] = {
        "container_id": ContainerId.parse("pod.side"),
        "state": ContainerState.PROVISIONED,
        "node": "n1",
        "generation": "1",
        "created_ms": 0,
        "changed_ms": 0,
    }
    return ContainerView(**{**defaults, **attributes})  # type: ignore[arg-type]


def test_containers_are_listed_with_their_rootfses() -> None:
    """Those that are there and those being provisioned."""
    view = container(images={"rootfs": "docker.io/library/alpine:3"}, pending={"data": "docker.io/library/data:1"})

    shown = text_of(containers_table([view]))

    assert "1 container\n" in shown
    assert "pod.side" in shown
    assert "provisioned" in shown
    assert "rootfs: docker.io/library/alpine:3" in shown
    assert "data: docker.io/library/data:1" in shown


def test_a_failure_under_retry_is_noted() -> None:
    """Before anything that is waited for."""
    failed = container(last_error="r is unavailable: [503]", attempts=2, waits_for="layers")
    waiting = container(waits_for="layers")

    assert "attempt 2 failed: r is unavailable: [503]" in text_of(containers_table([failed]))
    assert "waits for layers" in text_of(containers_table([waiting]))


def test_an_empty_list_is_said_in_words() -> None:
    """No header without rows."""
    assert text_of(containers_table([])) == "0 containers\n"


@pytest.mark.parametrize(
    ("is_live", "is_recovered", "word"),
    [(True, True, "live"), (True, False, "recovering"), (False, True, "gone"), (False, False, "gone")],
)
def test_a_node_is_live_recovering_or_gone(is_live: bool, is_recovered: bool, word: str) -> None:
    """What matters is whether it takes work."""
    view = NodeView(
        name="n1",
        store_id="0123456789abcdef",
        backends=("overlay", "copy"),
        layer_formats=("directory",),
        backend="overlay",
        free_bytes=81_600_000_000,
        version="0.1.0",
    )

    shown = text_of(
        nodes_table([NodeStatus(view=view, seen_ms=0, is_live=is_live, is_recovered=is_recovered)], {"n1": 3})
    )

    assert word in shown
    assert "overlay copy" in shown
    assert "81.6 GB" in shown


def test_a_lock_shows_holders_before_waiters() -> None:
    """With the time each has held or waited, and what its lease has left."""
    holder = Party(owner="n1:1:a", mode=LockMode.SHARED, age_seconds=1.5, remaining_seconds=28.5)
    waiter = Party(owner="n2:2:b", mode=LockMode.EXCLUSIVE, age_seconds=0.5, remaining_seconds=19.5)
    view = LockView(token=7, quarantine_seconds=3.0, holders=(holder,), waiters=(waiter,))

    lines = text_of(lock_table("0123456789abcdef", view)).splitlines()

    assert lines[0].startswith("lock of store 0123456789ab: 1 hold, 1 wait, token 7, quarantined for 3 s")
    rows = [line.split() for line in lines if "n1:" in line or "n2:" in line]
    assert rows[0] == ["holds", "shared", "n1:1:a", "1.5", "s", "28.5", "s"]
    assert rows[1] == ["waits", "exclusive", "n2:2:b", "0.5", "s", "19.5", "s"]


def test_a_free_lock_is_one_line() -> None:
    """Nothing to list."""
    view = LockView(token=0, quarantine_seconds=0, holders=(), waiters=())

    assert text_of(lock_table("0123456789abcdef", view)) == "lock of store 0123456789ab: free, token 0\n"


def test_images_are_complete_or_say_what_they_miss() -> None:
    """And whether anybody needs them."""
    owner = RefOwner(node="n1", container_id="web-1", name="rootfs")
    complete = StoredImageView(
        digest="sha256:" + "a" * 64,
        references=(ReferenceView(reference="docker.io/library/app:1", platform="linux/amd64"),),
        layers=("sha256:" + "1" * 64,),
        disk_bytes=1500,
        owners=(owner,),
    )
    partial = StoredImageView(digest="sha256:" + "b" * 64, references=(), missing=("sha256:" + "2" * 64,))
    broken = StoredImageView(digest="sha256:" + "c" * 64, references=(), error="[it] is corrupt")
    store = StoreView(store_id="1", store_dir="/s", images=(complete, partial, broken), layers=1, disk_bytes=1500)

    lines = text_of(images_table(store)).splitlines()

    assert lines[0] == "store /s: 3 images, 1 layer, 1.5 kB"
    rows = {line.split()[-1]: line for line in lines if line.strip()}
    assert "docker.io/library/app:1" in rows["complete"]
    assert "misses 222222222222" in rows["222222222222"]
    assert "[it] is corrupt" in rows["corrupt"]


def test_facts_leave_out_what_is_empty_and_keep_brackets() -> None:
    """One key a line, several values below each other."""
    shown = text_of(facts({"a": None, "b": "", "c": [], "d": ["x", "y"], "e": "[red]", "f": 0, "g": {"k": "v"}}))

    assert [line.split() for line in shown.splitlines()] == [
        ["d", "x"],
        ["y"],
        ["e", "[red]"],
        ["f", "0"],
        ["g", "k:", "v"],
    ]


def test_a_provision_shows_paths_and_no_configuration() -> None:
    """The configuration is for programs."""
    info = {"rootfs": "/r", "layers": ["a", "b"], "docker_manifest": {"config": {}}, "appc_manifest": None}

    assert [line.split() for line in text_of(provisioned_table(info)).splitlines()] == [
        ["rootfs", "/r"],
        ["layers", "2"],
    ]
