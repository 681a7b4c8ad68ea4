# SPDX-License-Identifier: Apache-2.0
"""What overlay does that the conformance suite cannot see: its mount as data, its trial, its upper directory."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.needs import missing_programs
from tests.support.trees import Directory, File, make_tree, tree_snapshot
from tests.support.unprivileged import nobodys_directory, run_as_nobody
from worker.backends import overlay
from worker.backends.overlay import OverlayBackend, plan_mount, plan_mount_in_one_page
from worker.errors import StorageExhausted
from worker.image import LowerDir
from worker.linux.mount import Mount, MountFlag, Option, mount_filesystem, mount_in_one_page, unmount_tree
from worker.linux.mountinfo import mounts_at_or_below
from worker.paths import RootfsPaths

HOME = RootfsPaths(Path("/w/home"))
LOWERS = [Path("/s/base"), Path("/s/middle"), Path("/s/top")]
ALL_PARAMETERS = {"index", "metacopy", "redirect_dir", "xino_auto", "nfs_export"}


def test_plan_of_a_writable_rootfs() -> None:
    """Topmost layer first, then the upper directory, then what must not depend on the kernel's build."""
    plan = plan_mount(LOWERS, HOME, is_read_only=False, parameters=ALL_PARAMETERS)

    assert plan == Mount(
        fs_type="overlay",
        source="overlay",
        target=Path("/w/home/rootfs"),
        options=(
            Option("lowerdir+", Path("/s/top")),
            Option("lowerdir+", Path("/s/middle")),
            Option("lowerdir+", Path("/s/base")),
            Option("upperdir", Path("/w/home/upper")),
            Option("workdir", Path("/w/home/work")),
            Option("index", "off"),
            Option("metacopy", "off"),
            Option("redirect_dir", "on"),
            Option("xino", "auto"),
        ),
    )


def test_plan_of_a_read_only_rootfs_has_no_upper_directory() -> None:
    """And no redirects to follow."""
    plan = plan_mount(LOWERS, HOME, is_read_only=True, parameters={"redirect_dir"})

    assert [option.name for option in plan.options] == ["lowerdir+"] * 3 + ["redirect_dir"]
    assert plan.options[-1].value == "nofollow"
    assert plan.flags == MountFlag.READ_ONLY


def test_plan_lays_an_empty_directory_under_a_single_read_only_layer() -> None:
    """Overlayfs wants two lower directories where there is no upper one; the layer stays the one whose root shows."""
    read_only = plan_mount(LOWERS[:1], HOME, is_read_only=True, parameters=())
    writable = plan_mount(LOWERS[:1], HOME, is_read_only=False, parameters=())

    assert [option.value for option in read_only.options] == [Path("/s/base"), Path("/w/home/empty")]
    assert [option.name for option in writable.options] == ["lowerdir+", "upperdir", "workdir"]


def test_plan_in_one_page_joins_the_layers() -> None:
    """Everything else is as in the other plan."""
    joined = plan_mount_in_one_page(LOWERS, HOME, is_read_only=False, parameters=ALL_PARAMETERS)
    listed = plan_mount(LOWERS, HOME, is_read_only=False, parameters=ALL_PARAMETERS)

    assert joined.options[0] == Option("lowerdir", (LOWERS[2], ":", LOWERS[1], ":", LOWERS[0]))
    assert joined.options[1:] == listed.options[3:]


@pytest.mark.root
def test_plan_in_one_page_mounts_the_same(tmp_path: Path) -> None:
    """What kernels before 6.7 get, with 500 layers named by their digests."""
    lowers = [tmp_path / "store" / f"sha256:{number:064x}" for number in range(500)]
    for number, lower in enumerate(lowers):
        make_tree(lower, {f"f{number}": File(), "last": File(str(number).encode())})
    home = RootfsPaths(tmp_path / "home")
    for directory in (home.rootfs_dir, home.upper_dir, home.work_dir):
        directory.mkdir(parents=True)

    mount_in_one_page(plan_mount_in_one_page(lowers, home, is_read_only=False, parameters=overlay._parameters()))
    content = (home.rootfs_dir / "last").read_bytes(), len(list(home.rootfs_dir.iterdir()))
    unmount_tree(tmp_path)

    assert content == (b"499", 501)


@pytest.fixture
def home(tmp_path: Path) -> RootfsPaths:
    """An empty home."""
    paths = RootfsPaths(tmp_path / "home")
    paths.rootfs_home.mkdir()
    return paths


@pytest.mark.root
def test_upper_directory_starts_with_the_topmost_roots_attributes(tmp_path: Path, home: RootfsPaths) -> None:
    """The root of the rootfs is the image's, not one we made; later the container's own."""
    root = Directory(mode=0o1711, uid=3, gid=4, xattrs={"user.note": b"root's"})
    make_tree(tmp_path / "base", {"f": File()})
    make_tree(tmp_path / "top", {".": root})
    lowers = [LowerDir(path=tmp_path / "base"), LowerDir(path=tmp_path / "top")]

    OverlayBackend().provision(lowers, home, is_read_only=False)
    first = tree_snapshot(home.rootfs_dir)["."]
    home.rootfs_dir.chmod(0o700)
    unmount_tree(home.rootfs_home)
    OverlayBackend().provision(lowers, home, is_read_only=False)
    second = home.rootfs_dir.stat().st_mode
    unmount_tree(home.rootfs_home)

    assert first == tree_snapshot(tmp_path / "top")["."]
    assert second & 0o7777 == 0o700


@pytest.mark.root
def test_volumes_are_the_upper_and_the_work_directory(home: RootfsPaths) -> None:
    """As the ancestor counted them; nothing for a rootfs that cannot be written to."""
    assert OverlayBackend().ephemeral_volumes(home, is_read_only=False) == (home.upper_dir, home.work_dir)
    assert OverlayBackend().ephemeral_volumes(home, is_read_only=True) == ()


@pytest.mark.root
def test_mount_is_shared(tmp_path: Path, home: RootfsPaths) -> None:
    """What is mounted in it later shows in the copies that containers have."""
    make_tree(tmp_path / "layer", {"f": File()})

    OverlayBackend().provision([LowerDir(path=tmp_path / "layer")], home, is_read_only=False)
    (mount,) = mounts_at_or_below(home.rootfs_dir)
    unmount_tree(home.rootfs_home)

    assert mount.is_shared


@pytest.mark.root
@pytest.mark.parametrize("inodes", range(3, 9))
def test_full_work_directory_is_transient_and_never_a_read_only_rootfs(tmp_path: Path, inodes: int) -> None:
    """Overlayfs mounts read-only when it cannot write; wherever the last inode goes, the answer is no room."""
    make_tree(tmp_path / "layer", {"f": File()})
    (tmp_path / "work").mkdir()
    option = Option("nr_inodes", str(inodes))
    mount_filesystem(Mount(fs_type="tmpfs", source="tmpfs", target=tmp_path / "work", options=(option,)))
    home = RootfsPaths(tmp_path / "work" / "home")
    home.rootfs_home.mkdir()

    with pytest.raises(StorageExhausted, match="No space left"):
        OverlayBackend().provision([LowerDir(path=tmp_path / "layer")], home, is_read_only=False)

    assert mounts_at_or_below(home.rootfs_home) == ()
    unmount_tree(tmp_path)


@pytest.mark.root
def test_room_later_lets_the_same_call_succeed(tmp_path: Path) -> None:
    """Nothing that a full disk left half made stands in the way."""
    make_tree(tmp_path / "layer", {"f": File()})
    work = tmp_path / "work"
    work.mkdir()
    mount_filesystem(Mount(fs_type="tmpfs", source="tmpfs", target=work, options=(Option("nr_inodes", "7"),)))
    home = RootfsPaths(work / "home")
    home.rootfs_home.mkdir()
    with pytest.raises(StorageExhausted):
        OverlayBackend().provision([LowerDir(path=tmp_path / "layer")], home, is_read_only=False)

    subprocess.run(["mount", "-o", "remount,nr_inodes=100", work], check=True)
    OverlayBackend().provision([LowerDir(path=tmp_path / "layer")], home, is_read_only=False)
    (home.rootfs_dir / "new").touch()
    unmount_tree(tmp_path)

    assert not OverlayBackend().is_provisioned(home)


# Whether it works here.


@pytest.mark.root
def test_overlay_below_the_upper_directory_is_refused(tmp_path: Path) -> None:
    """A worker inside a container without a volume: the kernel's words are passed on, and nothing is left."""
    lower, upper, work, target, store = (tmp_path / name for name in ("lower", "upper", "work", "target", "store"))
    for directory in (lower, upper, work, target, store):
        directory.mkdir()
    options = (Option("lowerdir+", lower), Option("upperdir", upper), Option("workdir", work))
    mount_filesystem(Mount(fs_type="overlay", source="overlay", target=target, options=options))

    reason = OverlayBackend().unsupported_reason(work_dir=target, store_dir=store)
    left = [path for directory in (target, store) for path in directory.iterdir()]
    unmount_tree(tmp_path)

    assert reason is not None
    assert f"a trial mount of {store} and {target} failed" in reason
    assert left == []


@pytest.mark.root
def test_filesystem_without_entry_types_is_refused(tmp_path: Path) -> None:
    """On either side; the ancestor looked at one."""
    if missing := missing_programs("mkfs.ext4"):
        pytest.skip(missing)
    image, plain, odd = tmp_path / "image", tmp_path / "plain", tmp_path / "odd"
    plain.mkdir()
    odd.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^filetype", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, odd], check=True)
    shutil.rmtree(odd / "lost+found")

    reasons = [
        OverlayBackend().unsupported_reason(work_dir=odd, store_dir=plain),
        OverlayBackend().unsupported_reason(work_dir=plain, store_dir=odd),
    ]
    unmount_tree(odd)

    assert all(reason is not None and "d_type" in reason for reason in reasons)


@pytest.mark.root
@pytest.mark.parametrize("program", ["mkfs.btrfs", "mkfs.xfs"])
def test_filesystem_that_the_kernel_can_use_is_taken(tmp_path: Path, program: str) -> None:
    """The ancestor refused btrfs; the trial knows better."""
    if missing := missing_programs(program):
        pytest.skip(missing)
    image, target = tmp_path / "image", tmp_path / "target"
    with image.open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run([program, "-q", image], check=True)
    target.mkdir()
    if subprocess.run(["mount", "-o", "loop", image, target], check=False, capture_output=True).returncode != 0:
        pytest.skip(f"the kernel mounts nothing made by {program}")

    reason = OverlayBackend().unsupported_reason(work_dir=target, store_dir=target)
    left = os.listdir(target)  # noqa: PTH208 - names are compared
    unmount_tree(target)

    assert reason is None
    assert left == []


@pytest.mark.root
@pytest.mark.parametrize(("work", "store"), [("same", "same"), ("same", "same/below"), ("same/below", "same")])
def test_directories_may_lie_inside_each_other(tmp_path: Path, work: str, store: str) -> None:
    """The trial does not stack a directory on its own parent."""
    for name in (work, store):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)

    assert OverlayBackend().unsupported_reason(work_dir=tmp_path / work, store_dir=tmp_path / store) is None


@pytest.mark.root
def test_without_root_it_says_so() -> None:
    """The reason is for people who start a node by hand."""
    with nobodys_directory() as directory:

        def ask() -> None:
            reason = OverlayBackend().unsupported_reason(work_dir=directory, store_dir=directory)
            assert reason == "it needs root with the capability CAP_SYS_ADMIN"

        run_as_nobody(ask)
