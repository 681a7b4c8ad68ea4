# SPDX-License-Identifier: Apache-2.0
"""A rootfs comes, comes again, and goes for good, whichever backend it is from."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conformance.site import EVERYTHING, Site, names
from tests.support.killing import run_killed
from tests.support.mounts import mounts_below
from tests.support.trees import Directory, File, stack, tree_snapshot
from worker.errors import BackendUnsupported
from worker.image import LowerDir
from worker.linux.mount import Mount, mount_filesystem, unmount_tree
from worker.paths import RootfsPaths

pytestmark = pytest.mark.root


def test_provisioning_again_changes_nothing(site: Site) -> None:
    """A second call gives the same rootfs, mounted once, with what was written."""
    paths = site.home()
    layers = [site.layer({"f": File()})]
    first = site.backend.provision(layers, paths, is_read_only=not site.backend.is_writable)
    if site.backend.is_writable:
        (paths.rootfs_dir / "f").write_bytes(b"written")
    before = tree_snapshot(paths.rootfs_dir), mounts_below(paths.rootfs_home)

    second = site.backend.provision(layers, paths, is_read_only=not site.backend.is_writable)

    assert second == first
    assert (tree_snapshot(paths.rootfs_dir), mounts_below(paths.rootfs_home)) == before
    assert len(before[1]) <= 1


def test_provisioned_means_there_now(site: Site) -> None:
    """The backend tells before, between and after."""
    paths = site.home()
    states = [site.backend.is_provisioned(paths)]

    site.backend.provision([site.layer({"f": File()})], paths, is_read_only=True)
    states.append(site.backend.is_provisioned(paths))
    site.backend.destroy(paths)
    states.append(site.backend.is_provisioned(paths))

    assert states == [False, True, False]


@pytest.mark.parametrize("is_read_only", [False, True], ids=["writable", "read-only"])
def test_destroying_twice_answers_whether_there_was_a_rootfs(site: Site, *, is_read_only: bool) -> None:
    """The first call takes it down, the second finds nothing; the layers stay."""
    paths = site.home()
    layer = site.layer(EVERYTHING)
    before = tree_snapshot(layer.path)
    site.backend.provision([layer], paths, is_read_only=is_read_only)

    answers = [site.backend.destroy(paths), site.backend.destroy(paths)]

    assert answers == [True, False]
    assert site.is_clean(paths)
    assert tree_snapshot(layer.path) == before


def test_destroying_nothing_answers_false(site: Site) -> None:
    """A home in which nothing was provisioned, or which is missing, has no rootfs."""
    empty, missing = site.home(), RootfsPaths(site.work_dir / "missing" / "home")

    assert not site.backend.destroy(empty)
    assert not site.backend.destroy(missing)


def test_destroys_a_rootfs_in_use(site: Site) -> None:
    """An open file and a working directory hold nothing up (MESOS-9196)."""
    paths = site.home()
    layer = site.layer({"d/f": File(b"still readable")})
    site.backend.provision([layer], paths, is_read_only=True)

    with (paths.rootfs_dir / "d/f").open("rb") as file:
        assert site.backend.destroy(paths)

        assert file.read() == b"still readable"
    assert site.is_clean(paths)


def test_destroys_what_was_mounted_upon_and_inside(site: Site) -> None:
    """Mounts stacked on the rootfs and made below it go with it."""
    paths = site.home()
    layer = site.layer({"proc": Directory(), "d/e": Directory()})
    site.backend.provision([layer], paths, is_read_only=True)
    for place in ("proc", "d", "d"):
        _mount_tmpfs(paths.rootfs_dir / place)
    (paths.rootfs_dir / "d/inner").mkdir()
    _mount_tmpfs(paths.rootfs_dir / "d/inner")
    for _ in range(3):
        _mount_tmpfs(paths.rootfs_dir)

    assert site.backend.destroy(paths)

    assert site.is_clean(paths)
    assert names(layer.path) == ["d", "proc"]


def test_comes_back_after_a_reboot_with_what_was_written(writable: Site) -> None:
    """Mounts are gone then, files are not; the same call brings the rootfs back."""
    paths = writable.home()
    layers = writable.layers([{"f": File(), "g": File(), "d/h": File()}, {"i": File()}])
    volumes = writable.backend.provision(layers, paths, is_read_only=False)
    (paths.rootfs_dir / "f").write_bytes(b"written")
    (paths.rootfs_dir / "g").unlink()
    shutil.rmtree(paths.rootfs_dir / "d")
    before = tree_snapshot(paths.rootfs_dir)

    unmount_tree(paths.rootfs_home)

    assert writable.backend.provision(layers, paths, is_read_only=False) == volumes
    assert tree_snapshot(paths.rootfs_dir) == before


def test_read_only_rootfs_comes_back_after_a_reboot(site: Site) -> None:
    """It is noticed that it is gone, and it is read-only again."""
    paths = site.home()
    layers = [site.layer({"f": File(b"kept")})]
    site.backend.provision(layers, paths, is_read_only=True)

    unmount_tree(paths.rootfs_home)
    was_noticed = not site.backend.is_provisioned(paths)
    site.backend.provision(layers, paths, is_read_only=True)

    assert was_noticed
    assert site.backend.is_provisioned(paths)
    with pytest.raises(OSError, match="Read-only"):
        (paths.rootfs_dir / "f").write_bytes(b"x")


def test_provisions_different_rootfses_at_once(site: Site) -> None:
    """Backends run beside themselves on different rootfses over the same layers."""
    layers = [site.layer(EVERYTHING)]
    homes = [site.home(f"home{number}") for number in range(8)]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda paths: site.backend.provision(layers, paths, is_read_only=True), homes))
        snapshots = [tree_snapshot(paths.rootfs_dir) for paths in homes]
        destroyed = list(pool.map(site.backend.destroy, homes))

    assert all(snapshot == stack([EVERYTHING]) for snapshot in snapshots)
    assert all(destroyed)
    assert mounts_below(site.work_dir) == []


def test_refuses_no_layer(site: Site) -> None:
    """A rootfs of nothing is refused, and nothing is left behind."""
    paths = site.home()

    with pytest.raises(BackendUnsupported, match="no layer"):
        site.backend.provision([], paths, is_read_only=True)

    assert list(paths.rootfs_home.iterdir()) == []


def test_refuses_the_same_layer_twice(stacking_dirs: Site) -> None:
    """The contract has no duplicates; aufs and overlayfs fail on them in their own obscure ways."""
    paths = stacking_dirs.home()
    layer = stacking_dirs.layer({"f": File()})

    with pytest.raises(BackendUnsupported, match="twice"):
        stacking_dirs.backend.provision([layer, layer], paths, is_read_only=True)

    assert list(paths.rootfs_home.iterdir()) == []


def test_refuses_more_layers_than_it_says(site: Site) -> None:
    """One layer too many is refused before anything is done."""
    if site.backend.max_lower_dirs is None:
        return
    paths = site.home()
    layers = [LowerDir(path=site.store_dir / str(number)) for number in range(site.backend.max_lower_dirs + 1)]

    with pytest.raises(BackendUnsupported, match=f"at most {site.backend.max_lower_dirs} layers"):
        site.backend.provision(layers, paths, is_read_only=True)

    assert list(paths.rootfs_home.iterdir()) == []


def test_support_is_probed_without_a_trace(site: Site) -> None:
    """Asking leaves neither files nor mounts, also what a killed asker left."""
    for kill_at in range(1, 400, 40):
        run_killed(
            lambda: site.backend.unsupported_reason(work_dir=site.work_dir, store_dir=site.store_dir), at_line=kill_at
        )

    assert site.backend.unsupported_reason(work_dir=site.work_dir, store_dir=site.store_dir) is None

    assert mounts_below(site.work_dir) == []
    assert list(site.work_dir.iterdir()) == []


def _mount_tmpfs(place: Path) -> None:
    mount_filesystem(Mount(fs_type="tmpfs", source="tmpfs", target=place))
