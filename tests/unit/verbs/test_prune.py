# SPDX-License-Identifier: Apache-2.0
"""prune: frees all that nothing needs, and nothing else."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import redis

from tests.support.mounts import mounts_below, unmount
from tests.support.provisioners import SMALL_TREE, files, small_layout, tree_text
from worker.errors import InvalidArgument, LeaseLost, LockTimeout
from worker.linux.flock import locked, try_lock
from worker.lock import Lease, LockMode, ReadWriteLock
from worker.observer import Metric, Observation
from worker.oci.digest import Digest
from worker.provisioner import Elsewhere, Provisioner
from worker.runtime import make_provisioner
from worker.store.images import RefOwner

pytestmark = [pytest.mark.root, pytest.mark.redis]


class WatchedLock(ReadWriteLock):
    """Shows each lease before its holder has it."""

    on_grant: Callable[[Lease], None]

    def acquire(self, mode: LockMode, *, timeout_seconds: float | None = None) -> Lease:
        """Acquire and show."""
        lease = super().acquire(mode, timeout_seconds=timeout_seconds)
        self.on_grant(lease)
        return lease


def _watched(node: Provisioner, client: redis.Redis, on_grant: Callable[[Lease], None]) -> Provisioner:
    """Return the same node, its leases shown."""
    lock = WatchedLock(
        client,
        node.node.lock.name,
        lease_seconds=node.node.settings.lease_seconds,
        token_floor=node.node.store.fence.highest_token,
    )
    lock.on_grant = on_grant
    return Provisioner(replace(node.node, lock=lock))


def test_what_a_container_needs_stays(node: Provisioner, image: str, tmp_path: Path) -> None:
    """The used image keeps its layers; the pulled one goes with its own."""
    info = node.provision({"container_id": "c1", "image": image})
    other = node.pull({"image": small_layout(tmp_path / "other", "other")})

    pruned = node.prune({})

    assert not isinstance(info, Elsewhere)
    assert not isinstance(other, Elsewhere)
    assert not isinstance(pruned, Elsewhere)
    assert pruned["images"] == [other["digest"]]
    assert set(pruned["layers"]) == set(other["layers"]) - set(info["layers"])
    assert pruned["bytes_freed"] > 0
    assert pruned["exclusive_ms"] > 0
    assert tree_text(info["rootfs"]) == SMALL_TREE
    assert (pruned["store"], pruned["node"]) == (node.node.store.identity, "n1")


def test_after_destroy_and_prune_the_store_is_empty(node: Provisioner, image: str) -> None:
    """Not even an empty reference is left."""
    node.provision({"container_id": "c1", "image": image})
    node.destroy({"container_id": "c1"})

    node.prune({})

    paths = node.node.store.paths
    for directory in (paths.images_dir, paths.references_dir, paths.staging_dir, paths.trash_dir):
        assert files(directory) == []
    assert list(node.node.store.layers.committed()) == []


def test_a_dry_run_says_the_same_and_does_nothing(node: Provisioner, image: str) -> None:
    """What it announces is what the prune then does."""
    node.pull({"image": image})
    before = files(node.node.store.paths.store_dir)

    announced = node.prune({"dry_run": True})

    assert files(node.node.store.paths.store_dir) == before
    done = node.prune({})
    assert not isinstance(announced, Elsewhere)
    assert not isinstance(done, Elsewhere)
    assert {key: announced[key] for key in ("images", "layers")} == {key: done[key] for key in ("images", "layers")}
    assert announced["bytes_freed"] > 0


@pytest.mark.parametrize("spelling", ["{image}", "{digest}", "team/app:1@{digest}"])
def test_excluded_images_stay_whole(node: Provisioner, image: str, spelling: str) -> None:
    """By any spelling of the reference, or by digest, whatever name stands before it."""
    pulled = node.pull({"image": image})
    assert not isinstance(pulled, Elsewhere)

    pruned = node.prune({"excluded_images": [spelling.format(image=image, digest=pulled["digest"])]})

    assert not isinstance(pruned, Elsewhere)
    assert (pruned["images"], pruned["layers"]) == ([], [])
    assert node.pull({"image": image})["bytes_fetched"] == 0  # type: ignore[index]


def test_a_bad_exclusion_prunes_nothing(node: Provisioner, image: str) -> None:
    """The error names it."""
    node.pull({"image": image})

    with pytest.raises(InvalidArgument, match="Not-A-Name"):
        node.prune({"excluded_images": ["Not-A-Name"]})

    assert len(list(node.node.store.images.digests())) == 1


def test_what_killed_pulls_left_keeps_nothing(node: Provisioner, image: str) -> None:
    """Neither the pin of one that nobody carries on, nor what it had staged; what a living one holds stays."""
    pulled = node.pull({"image": image})
    assert not isinstance(pulled, Elsewhere)
    digest, store = Digest.parse(pulled["digest"]), node.node.store
    for name in ("n1", "another"):
        store.images.keep(digest, RefOwner(node=name, container_id="", name=f"pull-{name}"))
    (store.paths.staging_dir / "layer").mkdir()
    (store.paths.staging_dir / "layer.lock").touch()

    with store.images.pin(digest, RefOwner(node="n1", container_id="", name="heal-1")):
        beside = node.prune({})
    after = node.prune({})

    assert beside["images"] == []  # type: ignore[index]
    assert files(store.paths.staging_dir) == []
    assert after["images"] == [pulled["digest"]]  # type: ignore[index]


def test_an_unreadable_image_in_use_freezes_the_layers(node: Provisioner, image: str, tmp_path: Path) -> None:
    """Nobody knows which layers its containers stand on."""
    info = node.provision({"container_id": "c1", "image": image})
    node.pull({"image": small_layout(tmp_path / "other", "other")})
    assert not isinstance(info, Elsewhere)
    node.node.store.paths.manifest_path(info["digest"]).write_bytes(b"{")

    pruned = node.prune({})

    assert pruned["layers"] == []  # type: ignore[index]
    assert tree_text(info["rootfs"]) == SMALL_TREE


def test_an_empty_store_prunes_to_nothing(node: Provisioner) -> None:
    """The ancestor failed here."""
    pruned = node.prune({})

    assert (pruned["images"], pruned["layers"], pruned["bytes_freed"]) == ([], [], 0)  # type: ignore[index]


def test_enough_free_space_means_nothing_to_do(node: Provisioner, image: str) -> None:
    """The ancestor's headroom: a disk that has it is left alone."""
    node.pull({"image": image})

    assert node.prune({"free_bytes": 1})["images"] == []  # type: ignore[index]
    assert node.prune({"free_percent": 0.0001})["images"] == []  # type: ignore[index]
    assert len(node.prune({"free_percent": 100})["images"]) == 1  # type: ignore[index]


def test_what_was_used_lately_is_kept(node: Provisioner, image: str) -> None:
    """Being used means getting or losing a ref."""
    node.provision({"container_id": "c1", "image": image})
    node.destroy({"container_id": "c1"})

    assert node.prune({"unused_seconds": 3600.0})["images"] == []  # type: ignore[index]
    for digest in node.node.store.images.digests():
        os.utime(node.node.store.paths.refs_dir(str(digest)), (1, 1))
    assert len(node.prune({"unused_seconds": 3600.0})["images"]) == 1  # type: ignore[index]


def test_a_moved_tag_leaves_the_old_image_to_those_who_use_it(node: Provisioner, tmp_path: Path) -> None:
    """Nothing remembers the old image by name; the container that stands on it keeps it whole, also over a reboot."""
    image = small_layout(tmp_path / "layout", "first")
    old = node.provision({"container_id": "c1", "image": image})
    small_layout(tmp_path / "layout", "second")
    node.pull({"image": image, "cached": False})

    pruned = node.prune({"excluded_images": [image]})
    unmount(mounts_below(node.node.work.work_dir))
    node.recover({})

    assert not isinstance(old, Elsewhere)
    assert not isinstance(pruned, Elsewhere)
    assert pruned["images"] == []
    assert tree_text(old["rootfs"])["new"] == "first"


def test_a_prune_waits_for_the_nodes_recovery(node: Provisioner, image: str) -> None:
    """What recover is at stays as it is until it is done; the ancestor's timer could fire in between."""
    node.pull({"image": image})
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(node.prune({})))

    with locked(node.node.work.node_lock_path, exclusive=True):
        thread.start()
        thread.join(0.5)
        are_there = list(node.node.store.images.digests())
        waited = thread.is_alive()
    thread.join(30)

    assert (waited, len(are_there), len(answers)) == (True, 1, 1)
    assert list(node.node.store.images.digests()) == []


def test_others_are_kept_waiting_from_the_grant_of_the_lock(
    node: Provisioner, image: str, redis_client: redis.Redis
) -> None:
    """Also while somebody whose lease lapsed still has the fence."""
    node.pull({"image": image})
    stale = try_lock(node.node.store.paths.lock_path, exclusive=False)
    assert stale is not None
    watched = _watched(node, redis_client, lambda _: threading.Timer(0.05, stale.release).start())

    pruned = watched.prune({})

    assert pruned["exclusive_ms"] >= 50  # type: ignore[index]


def test_a_prune_that_waits_for_the_fence_in_vain_held_the_lock(node: Provisioner) -> None:
    """It is seen as what kept others waiting."""
    seen: list[Observation] = []
    watched = Provisioner(replace(node.node, observe=seen.append))

    with locked(node.node.store.paths.lock_path, exclusive=False), pytest.raises(LockTimeout):
        watched.prune({})

    assert [each.labels for each in seen if each.metric is Metric.LOCK_WAIT_SECONDS] == [("exclusive", "failed")]
    assert [each.labels for each in seen if each.metric is Metric.LOCK_HOLD_SECONDS] == [("exclusive",)]


def test_a_prune_whose_lease_is_lost_between_two_renames_stops_there(
    node: Provisioner, image: str, redis_client: redis.Redis
) -> None:
    """Somebody else may be in the store by then; the next prune goes on."""
    node.pull({"image": image})

    def lapse(lease: Lease) -> None:
        checks = count()

        def check() -> None:
            if next(checks) == 2:  # The first on entering, the second before the image goes.
                lease.lose("it was not renewed in time")
            Lease.check(lease)

        lease.check = check  # type: ignore[method-assign]

    with pytest.raises(LeaseLost, match="not renewed in time"):
        _watched(node, redis_client, lapse).prune({})
    left = len(list(node.node.store.images.digests())), len(list(node.node.store.layers.committed()))
    pruned = node.prune({})

    assert left == (0, 2)
    assert len(pruned["layers"]) == 2  # type: ignore[index]
    assert files(node.node.store.paths.trash_dir) == files(node.node.store.paths.references_dir) == []


def test_a_store_under_another_name_is_the_same_store(
    node: Provisioner, image: str, tmp_path: Path, layer_format: str
) -> None:
    """A link to it, after a restart: layers are known by what they are, not by the path that led to them."""
    info = node.provision({"container_id": "c1", "image": image})
    (tmp_path / "elsewhere").symlink_to(node.node.store.paths.store_dir)
    settings = node.node.settings.model_copy(update={"store_dir": tmp_path / "elsewhere"})

    renamed = make_provisioner(settings)
    pruned = renamed.prune({})
    unmount(mounts_below(node.node.work.work_dir))
    recovered = renamed.recover({})

    assert not isinstance(info, Elsewhere)
    assert not isinstance(pruned, Elsewhere)
    assert not isinstance(recovered, Elsewhere)
    assert (pruned["images"], pruned["store"]) == ([], node.node.store.identity)
    assert recovered["remounted"] == ["c1"]
    assert tree_text(info["rootfs"]) == SMALL_TREE
