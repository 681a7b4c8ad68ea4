# SPDX-License-Identifier: Apache-2.0
"""Overlayfs: lower directories stacked by the kernel, writes kept in an upper directory.

Source: kernel 6.12, Documentation/filesystems/overlayfs.rst and fs/overlayfs/params.c.
"""

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar, NoReturn

from typing_extensions import override

from worker.backend import Backend
from worker.backends.probe import probe_dir, probe_lower_dir
from worker.backends.stack import check_stack, make_upper_dir, take_down
from worker.errors import MountFailed, ProvisionerError
from worker.image import LayerFormat, LowerDir
from worker.linux.durable import reporting_full_disk
from worker.linux.mount import (
    Mount,
    MountFlag,
    Option,
    UnknownOption,
    mount_filesystem,
    mount_in_one_page,
    receive_and_share,
    repair_propagation,
    unmount_tree,
)
from worker.linux.statfs import (
    filesystem_type,
    is_mount_point,
    is_read_only_mount,
    knows_filesystem,
    may_mount,
    tells_entry_types,
)
from worker.paths import RootfsPaths

_PARAMETERS_DIR = Path("/sys/module/overlay/parameters")
_UNSTACKABLE = frozenset({"aufs", "ecryptfs"})
"""Filesystems that misbehave on either side of an overlay without the kernel saying so. The ancestor also refused btrfs
and zfs, which have learnt what overlayfs needs (btrfs in 4.x, OpenZFS in 2.2); an older one fails the trial mount, as
does an overlay below the upper directory."""


class OverlayBackend(Backend):
    """Differences: none. Limits: root; 500 layers, which is what overlayfs stacks (OVL_MAX_STACK).

    The mount carries no `nodev` or `nosuid`, as the ancestor's: an image's own /dev/null and sudo work, and keeping a
    container from devices is the runtime's part (device cgroup, its own /dev).
    """

    name: ClassVar[str] = "overlay"
    layer_formats: ClassVar[tuple[LayerFormat, ...]] = (LayerFormat.EROFS, LayerFormat.DIRECTORY)
    max_lower_dirs: ClassVar[int | None] = 500

    @override
    def unsupported_reason(self, *, work_dir: Path, store_dir: Path) -> str | None:
        if not may_mount():
            return "it needs root with the capability CAP_SYS_ADMIN"
        if not knows_filesystem("overlay"):
            return "the kernel has no overlay filesystem"
        for directory in (work_dir, store_dir):
            if (fs_type := filesystem_type(directory)) in _UNSTACKABLE:
                return f"{directory} is on {fs_type}, which overlayfs cannot stack"
        return _trial_failure(work_dir=work_dir, store_dir=store_dir)

    @override
    def ephemeral_volumes(self, rootfs_paths: RootfsPaths, *, is_read_only: bool) -> tuple[Path, ...]:
        return () if is_read_only else (rootfs_paths.upper_dir, rootfs_paths.work_dir)

    @override
    def provision(
        self, lower_dirs: Sequence[LowerDir], rootfs_paths: RootfsPaths, *, is_read_only: bool
    ) -> tuple[Path, ...]:
        check_stack(self, lower_dirs)
        if _is_shown(rootfs_paths, is_read_only=is_read_only):
            repair_propagation(rootfs_paths.rootfs_dir)
        else:
            _make_dirs(lower_dirs, rootfs_paths, is_read_only=is_read_only)
            _mount([lower_dir.path for lower_dir in lower_dirs], rootfs_paths, is_read_only=is_read_only)
            receive_and_share(rootfs_paths.rootfs_dir)
        return self.ephemeral_volumes(rootfs_paths, is_read_only=is_read_only)

    @override
    def destroy(self, rootfs_paths: RootfsPaths) -> bool:
        return take_down(rootfs_paths)

    @override
    def is_provisioned(self, rootfs_paths: RootfsPaths) -> bool:
        return is_mount_point(rootfs_paths.rootfs_dir)


def plan_mount(
    lower_paths: Sequence[Path], rootfs_paths: RootfsPaths, *, is_read_only: bool, parameters: Collection[str]
) -> Mount:
    """Compute the mount with one option for each lower directory (Linux 6.7); pure.

    Args:
        lower_paths: Base first.
        rootfs_paths: Where the mount and its upper and work directories are.
        is_read_only: Without an upper directory.
        parameters: What this kernel's overlayfs can be told; an unknown option would fail the mount.
    """
    stacked = _topmost_first(lower_paths, rootfs_paths, is_read_only=is_read_only)
    lowers = tuple(Option("lowerdir+", path) for path in stacked)
    return _plan(lowers, rootfs_paths, is_read_only=is_read_only, parameters=parameters)


def plan_mount_in_one_page(
    lower_paths: Sequence[Path], rootfs_paths: RootfsPaths, *, is_read_only: bool, parameters: Collection[str]
) -> Mount:
    """Compute the same mount for older kernels, with all lower directories in one option; pure."""
    topmost, *others = _topmost_first(lower_paths, rootfs_paths, is_read_only=is_read_only)
    joined = (topmost, *(piece for path in others for piece in (":", path)))
    return _plan((Option("lowerdir", joined),), rootfs_paths, is_read_only=is_read_only, parameters=parameters)


def _topmost_first(lower_paths: Sequence[Path], rootfs_paths: RootfsPaths, *, is_read_only: bool) -> list[Path]:
    """Turn the order round; without an upper directory overlayfs wants two lower ones, so lay an empty one under."""
    if is_read_only and len(lower_paths) == 1:
        return [lower_paths[0], _empty_dir(rootfs_paths)]
    return list(reversed(lower_paths))


def _plan(
    lowers: tuple[Option, ...], rootfs_paths: RootfsPaths, *, is_read_only: bool, parameters: Collection[str]
) -> Mount:
    writable = (Option("upperdir", rootfs_paths.upper_dir), Option("workdir", rootfs_paths.work_dir))
    return Mount(
        fs_type="overlay",
        source="overlay",
        target=rootfs_paths.rootfs_dir,
        options=lowers + (() if is_read_only else writable) + _features(parameters, is_read_only=is_read_only),
        flags=MountFlag.READ_ONLY if is_read_only else MountFlag.NONE,
    )


def _features(parameters: Collection[str], *, is_read_only: bool) -> tuple[Option, ...]:
    """State what would otherwise depend on how the kernel was built.

    index=off: an upper directory is not tied to its lower ones by file handles. With it, a lazily unmounted rootfs that
        is still in use makes the next mount fail (EBUSY), and a store that was copied elsewhere makes it fail for good
        (ESTALE). The price: writing to one name of a hard link in a layer does not show under the others.
    metacopy=off: an upper directory holds whole files, so that quotas and backups of it mean something.
    redirect_dir=on: a directory from a layer can be renamed, as on any filesystem; else programs see EXDEV. Without an
        upper directory there is nothing to redirect.
    xino=auto: inode numbers stay unique when layers and upper directory are on different filesystems.
    """
    wanted = {"index": "off", "metacopy": "off", "redirect_dir": "nofollow" if is_read_only else "on"}
    options = tuple(Option(name, value) for name, value in wanted.items() if name in parameters)
    return (*options, Option("xino", "auto")) if "xino_auto" in parameters else options


def _mount(lower_paths: Sequence[Path], rootfs_paths: RootfsPaths, *, is_read_only: bool) -> None:
    parameters = _parameters()
    try:
        mount_filesystem(plan_mount(lower_paths, rootfs_paths, is_read_only=is_read_only, parameters=parameters))
    except UnknownOption:
        older = plan_mount_in_one_page(lower_paths, rootfs_paths, is_read_only=is_read_only, parameters=parameters)
        mount_in_one_page(older)
    if not _is_shown(rootfs_paths, is_read_only=is_read_only):
        _explain_read_only(rootfs_paths)


def _is_shown(rootfs_paths: RootfsPaths, *, is_read_only: bool) -> bool:
    """Tell whether the rootfs is mounted as wanted, and take down one that came out read-only.

    That is the kernel's answer when it cannot write to the work directory, such as on a full disk.
    Source: kernel 6.12, fs/overlayfs/super.c, "mounting read-only".
    """
    if not is_mount_point(rootfs_paths.rootfs_dir):
        return False
    if is_read_only or not is_read_only_mount(rootfs_paths.rootfs_dir):
        return True
    unmount_tree(rootfs_paths.rootfs_dir)
    return False


def _explain_read_only(rootfs_paths: RootfsPaths) -> NoReturn:
    """Write to the filesystem as overlayfs did.

    Raises:
        StorageExhausted: It is full.
        MountFailed: It is not; the kernel's log has the reason.
    """
    with reporting_full_disk(rootfs_paths.work_dir):
        trial = rootfs_paths.rootfs_home / "trial"
        trial.mkdir(exist_ok=True)
        trial.rmdir()
    raise MountFailed(target=str(rootfs_paths.rootfs_dir), reason="overlayfs cannot write to its work directory")


def _parameters() -> frozenset[str]:
    try:
        return frozenset(path.name for path in _PARAMETERS_DIR.iterdir())
    except FileNotFoundError:
        return frozenset()


def _empty_dir(rootfs_paths: RootfsPaths) -> Path:
    return rootfs_paths.rootfs_home / "empty"


def _make_dirs(lower_dirs: Sequence[LowerDir], rootfs_paths: RootfsPaths, *, is_read_only: bool) -> None:
    with reporting_full_disk(rootfs_paths.rootfs_home):
        if not is_read_only:
            make_upper_dir(rootfs_paths, topmost=lower_dirs[-1].path)
            rootfs_paths.work_dir.mkdir(0o700, exist_ok=True)
        elif len(lower_dirs) == 1:
            _empty_dir(rootfs_paths).mkdir(0o755, exist_ok=True)
        rootfs_paths.rootfs_dir.mkdir(0o755, exist_ok=True)


def _trial_failure(*, work_dir: Path, store_dir: Path) -> str | None:
    """Do on a small scale what containers will do, and say what did not work."""
    try:
        with probe_dir(work_dir) as home, probe_lower_dir(store_dir) as lower:
            _fill(lower)
            if not (tells_entry_types(lower) and tells_entry_types(home.parent)):
                return f"{work_dir} or {store_dir} does not tell the types of directory entries (d_type)"
            paths = RootfsPaths(home)
            OverlayBackend().provision([LowerDir(path=lower)], paths, is_read_only=False)
            return _misbehaviour(paths)
    except (OSError, ProvisionerError) as error:
        return f"a trial mount of {store_dir} and {work_dir} failed: {error}"


def _fill(lower: Path) -> None:
    (lower / "directory").mkdir()
    (lower / "directory" / "file").write_bytes(b"lower")
    (lower / "file").write_bytes(b"lower")


def _misbehaviour(paths: RootfsPaths) -> str | None:
    """Change, delete and replace what is in the lower directory; an upper directory that cannot keep it raises."""
    rootfs = paths.rootfs_dir
    with (rootfs / "directory" / "file").open("ab") as file:
        file.write(b"+upper")
    if (rootfs / "directory" / "file").read_bytes() != b"lower+upper":
        return "a file of a layer cannot be written to"
    (rootfs / "file").unlink()
    shutil.rmtree(rootfs / "directory")
    (rootfs / "directory").mkdir()
    if list(rootfs.rglob("*")) != [rootfs / "directory"]:
        return "what is deleted from a layer comes back"
    return None
