# SPDX-License-Identifier: Apache-2.0
"""Mounts appear complete or not at all, and go whatever is in the way."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.descriptors import open_below
from worker.errors import MountFailed
from worker.linux import libc
from worker.linux import mount as mounts
from worker.linux.mount import (
    BindMount,
    Mount,
    MountFlag,
    Option,
    UnknownOption,
    mount_bind,
    mount_filesystem,
    mount_in_one_page,
    receive_and_share,
    repair_propagation,
    unmount_tree,
)
from worker.linux.mountinfo import MountPoint, mounts_at_or_below
from worker.linux.statfs import is_mount_point, is_read_only_mount

pytestmark = pytest.mark.root


def _dirs(parent: Path, *names: str) -> list[Path]:
    paths = [parent / name for name in names]
    for path in paths:
        path.mkdir(parents=True)
    return paths


def _tmpfs(target: Path, *options: Option, flags: MountFlag = MountFlag.NONE) -> Mount:
    return Mount(fs_type="tmpfs", source="a source", target=target, options=options, flags=flags)


@pytest.mark.parametrize("make", [mount_filesystem, mount_in_one_page])
def test_mount_has_its_options_and_flags(tmp_path: Path, make: object) -> None:
    """Both interfaces of the kernel give the same mount."""
    assert callable(make)
    make(
        _tmpfs(tmp_path, Option("size", "64k"), Option("mode", "0711"), flags=MountFlag.NO_DEVICES | MountFlag.NO_SUID)
    )

    (found,) = mounts_at_or_below(tmp_path)
    unmount_tree(tmp_path)

    assert (found.fs_type, found.source) == ("tmpfs", "a source")
    assert {"nosuid", "nodev", "rw"} <= set(found.options)
    assert {"size=64k", "mode=711"} <= set(found.super_options)


def test_refused_option_is_named_in_the_kernels_words(tmp_path: Path) -> None:
    """An unknown one can be told from a bad one, and nothing is mounted."""
    with pytest.raises(UnknownOption, match=f"mount at {tmp_path} failed: tmpfs: Unknown parameter 'nonsense'"):
        mount_filesystem(_tmpfs(tmp_path, Option("nonsense", "x")))
    with pytest.raises(MountFailed, match="Bad value for 'size'") as refusal:
        mount_filesystem(_tmpfs(tmp_path, Option("size", "many")))

    assert not isinstance(refusal.value, UnknownOption)
    assert not is_mount_point(tmp_path)


def test_unknown_filesystem_and_missing_target_are_mount_failures(tmp_path: Path) -> None:
    """The error names the target."""
    with pytest.raises(MountFailed, match="No such device"):
        mount_filesystem(Mount(fs_type="nosuchfs", source="x", target=tmp_path))
    with pytest.raises(MountFailed, match=f"{tmp_path}/missing failed: No such file"):
        mount_filesystem(_tmpfs(tmp_path / "missing"))
    with pytest.raises(MountFailed, match="No such file"):
        mount_in_one_page(_tmpfs(tmp_path / "missing"))


def test_options_beyond_a_page_are_refused(tmp_path: Path) -> None:
    """The kernel would cut them off silently."""
    with pytest.raises(MountFailed, match="5005 bytes do not fit into one page"):
        mount_in_one_page(_tmpfs(tmp_path, Option("size", "0" * 5000)))


@pytest.mark.parametrize("name", ["plain", "x" * 250, "comma,colon:back\\slash", "blank name"])
def test_any_directory_can_be_an_option(tmp_path: Path, name: str) -> None:
    """Long and odd paths pass through both interfaces."""
    lower, other, target = _dirs(tmp_path, name, "other", "target")
    (lower / "file").write_bytes(b"found")
    one_by_one = Mount(
        fs_type="overlay",
        source="overlay",
        target=target,
        options=(Option("lowerdir+", lower), Option("lowerdir+", other)),
    )
    joined = Mount(
        fs_type="overlay", source="overlay", target=target, options=(Option("lowerdir", (lower, ":", other)),)
    )

    for make, plan in ((mount_filesystem, one_by_one), (mount_in_one_page, joined)):
        make(plan)
        assert (target / "file").read_bytes() == b"found"
        unmount_tree(target)


def test_one_page_holds_500_directories_of_any_length(tmp_path: Path) -> None:
    """Where their paths do not fit, their descriptors do; none is left open, and nobody's working directory changes."""
    lowers = _dirs(tmp_path, *(f"{'x' * 200}{number}" for number in range(500)))
    for number, lower in enumerate(lowers):
        (lower / f"file{number}").touch()
    (target,) = _dirs(tmp_path, "target")
    pieces = tuple(piece for lower in lowers for piece in (":", lower))[1:]
    mount = Mount(fs_type="overlay", source="x", target=target, options=(Option("lowerdir", pieces),))
    before = Path.cwd()
    seen = {before}

    with ThreadPoolExecutor(1) as thread:
        mounting = thread.submit(mount_in_one_page, mount)
        while not mounting.done():
            seen.add(Path.cwd())
        mounting.result()
    found = len(list(target.iterdir()))
    unmount_tree(target)

    assert found == 500
    assert seen == {before}
    assert Path.cwd() == before
    assert open_below(tmp_path) == []


def test_bind_mount_shows_a_directory_with_flags(tmp_path: Path) -> None:
    """The same files at a second place, which refuses writes; the source does not."""
    source, target = _dirs(tmp_path, "source", "target")
    (source / "file").write_bytes(b"one")

    mount_bind(BindMount(source=source, target=target, flags=MountFlag.READ_ONLY))

    assert (target / "file").samefile(source / "file")
    assert is_read_only_mount(target)
    assert not is_read_only_mount(source)
    with pytest.raises(OSError, match="Read-only"):
        (target / "file").write_bytes(b"two")
    unmount_tree(target)


def test_bind_mount_in_two_steps_is_the_same(tmp_path: Path) -> None:
    """What kernels before 5.12 get; white-box, since this one is newer."""
    source, target = _dirs(tmp_path, "source", "target")

    mounts._bind_in_two_steps(BindMount(source=source, target=target, flags=MountFlag.READ_ONLY))

    assert is_mount_point(target)
    assert is_read_only_mount(target)
    unmount_tree(target)


def test_bind_of_nothing_is_a_mount_failure(tmp_path: Path) -> None:
    """Neither a missing source nor a missing target leaves anything."""
    with pytest.raises(MountFailed, match="No such file"):
        mount_bind(BindMount(source=tmp_path / "missing", target=tmp_path))
    with pytest.raises(MountFailed, match="No such file"):
        mount_bind(BindMount(source=tmp_path, target=tmp_path / "missing"))

    assert not is_mount_point(tmp_path)


def _top(target: Path) -> MountPoint:
    return next(mount for mount in mounts_at_or_below(target) if mount.path == target)


@pytest.fixture
def shared_parent(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Two peers, as a host's mount and its copy in another namespace are."""
    parent, peer = _dirs(tmp_path, "parent", "peer")
    mount_filesystem(_tmpfs(parent))
    receive_and_share(parent)
    libc.call("mount", os.fsencode(parent), os.fsencode(peer), None, mounts._MS_BIND, None)
    _dirs(parent, "target/inside")
    yield parent / "target", peer / "target"
    unmount_tree(tmp_path)


def test_unmounts_arrive_and_mounts_do_not_spread(shared_parent: tuple[Path, Path]) -> None:
    """What the host takes down goes in its peers too; what is mounted in the rootfs stays there."""
    target, copy = shared_parent
    mount_filesystem(_tmpfs(target))
    receive_and_share(target)
    (inside,) = _dirs(target, "inside")
    mount_filesystem(_tmpfs(inside))
    mount = _top(target)
    spread = is_mount_point(copy), is_mount_point(copy / "inside")

    unmount_tree(inside)
    unmount_tree(copy)

    assert (mount.is_slave, spread) == (True, (True, False))
    assert not is_mount_point(target)


@pytest.mark.parametrize("done", [(), (mounts._MS_SLAVE,), (mounts._MS_SLAVE, mounts._MS_SHARED)])
@pytest.mark.parametrize("is_parent_shared", [False, True])
def test_half_done_propagation_is_completed(
    tmp_path: Path, shared_parent: tuple[Path, Path], done: tuple[int, ...], *, is_parent_shared: bool
) -> None:
    """Wherever its maker was killed, the mount ends shared; a second repair changes nothing."""
    (private,) = _dirs(tmp_path, "private")
    target = shared_parent[0] if is_parent_shared else private
    mount_filesystem(_tmpfs(target))
    for propagation in done:
        libc.call("mount", None, os.fsencode(target), None, propagation, None)

    repair_propagation(target)
    repaired = _top(target)
    repair_propagation(target)
    again = _top(target)
    unmount_tree(private)

    assert repaired.is_shared
    assert repaired.is_slave == (is_parent_shared and done != ())
    assert again == repaired


def test_propagation_of_no_mount_is_a_failure(tmp_path: Path) -> None:
    """A plain directory has none."""
    with pytest.raises(MountFailed, match="nothing is mounted there"):
        repair_propagation(tmp_path)
    with pytest.raises(MountFailed):
        receive_and_share(tmp_path)


def test_unmount_takes_down_stacked_and_nested_mounts_in_use(tmp_path: Path) -> None:
    """All of them are counted, neighbours stay."""
    tree, neighbour = _dirs(tmp_path, "tree", "tree-neighbour")
    for target in (neighbour, tree, tree, tree):
        mount_filesystem(_tmpfs(target))
    (nested,) = _dirs(tree, "nested/deeper")
    mount_filesystem(_tmpfs(nested))
    with (nested / "open").open("wb") as file:
        count = unmount_tree(tree)
        file.write(b"still possible")

    assert count == 4
    assert [mount.path for mount in mounts_at_or_below(tmp_path)] == [neighbour]
    unmount_tree(tmp_path)


def test_unmount_of_nothing_counts_zero(tmp_path: Path) -> None:
    """Neither a plain directory nor a missing one is an error."""
    assert unmount_tree(tmp_path) == 0
    assert unmount_tree(tmp_path / "missing" / "too") == 0


def test_unmount_finds_mounts_through_a_link(tmp_path: Path) -> None:
    """A work directory reached through a symbolic link is the one mountinfo lists by its real path."""
    (real,) = _dirs(tmp_path, "real/target")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    mount_filesystem(_tmpfs(real))

    assert unmount_tree(tmp_path / "link" / "target") == 1
    assert not is_mount_point(real)
