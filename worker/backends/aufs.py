# SPDX-License-Identifier: Apache-2.0
"""Aufs: the union filesystem before overlayfs, in kernels that carry its patch.

Source: aufs(5), "BRANCH SYNTAX" and "MOUNT OPTIONS".
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from worker.backend import Backend
from worker.backends.probe import probe_dir, probe_lower_dir
from worker.backends.stack import check_stack, make_upper_dir, take_down
from worker.errors import ProvisionerError
from worker.image import LayerFormat, LowerDir
from worker.linux.durable import reporting_full_disk
from worker.linux.mount import Mount, MountFlag, Option, mount_in_one_page, receive_and_share, repair_propagation
from worker.linux.statfs import filesystem_type, is_mount_point, knows_filesystem, may_mount
from worker.paths import RootfsPaths

_UNSTACKABLE = frozenset({"aufs", "btrfs", "ecryptfs"})


class AufsBackend(Backend):
    """Differences: the upper directory, which the ancestor did not count, is an ephemeral volume.

    It holds aufs' own `.wh.` files besides what the container wrote.

    Limits: root; 126 layers beside the upper directory, which is what aufs is built for by default
    (CONFIG_AUFS_BRANCH_MAX_127).
    """

    name: ClassVar[str] = "aufs"
    layer_formats: ClassVar[tuple[LayerFormat, ...]] = (LayerFormat.DIRECTORY_AUFS,)
    max_lower_dirs: ClassVar[int | None] = 126

    @override
    def unsupported_reason(self, *, work_dir: Path, store_dir: Path) -> str | None:
        if not may_mount():
            return "it needs root with the capability CAP_SYS_ADMIN"
        if not knows_filesystem("aufs"):
            return "the kernel has no aufs filesystem"
        for directory in (work_dir, store_dir):
            if (fs_type := filesystem_type(directory)) in _UNSTACKABLE:
                return f"{directory} is on {fs_type}, which aufs cannot stack"
        try:
            with probe_dir(work_dir) as home, probe_lower_dir(store_dir) as lower:
                self.provision([LowerDir(path=lower)], RootfsPaths(home), is_read_only=False)
        except (OSError, ProvisionerError) as error:
            return f"a trial mount of {store_dir} and {work_dir} failed: {error}"
        return None

    @override
    def ephemeral_volumes(self, rootfs_paths: RootfsPaths, *, is_read_only: bool) -> tuple[Path, ...]:
        return () if is_read_only else (rootfs_paths.upper_dir,)

    @override
    def provision(
        self, lower_dirs: Sequence[LowerDir], rootfs_paths: RootfsPaths, *, is_read_only: bool
    ) -> tuple[Path, ...]:
        check_stack(self, lower_dirs)
        if not is_mount_point(rootfs_paths.rootfs_dir):
            with reporting_full_disk(rootfs_paths.rootfs_home):
                rootfs_paths.rootfs_dir.mkdir(0o755, exist_ok=True)
            if not is_read_only:
                make_upper_dir(rootfs_paths, topmost=lower_dirs[-1].path)
            lower_paths = [lower_dir.path for lower_dir in lower_dirs]
            mount_in_one_page(plan_mount(lower_paths, rootfs_paths, is_read_only=is_read_only))
            receive_and_share(rootfs_paths.rootfs_dir)
        else:
            repair_propagation(rootfs_paths.rootfs_dir)
        return self.ephemeral_volumes(rootfs_paths, is_read_only=is_read_only)

    @override
    def destroy(self, rootfs_paths: RootfsPaths) -> bool:
        return take_down(rootfs_paths)

    @override
    def is_provisioned(self, rootfs_paths: RootfsPaths) -> bool:
        return is_mount_point(rootfs_paths.rootfs_dir)


def plan_mount(lower_paths: Sequence[Path], rootfs_paths: RootfsPaths, *, is_read_only: bool) -> Mount:
    """Compute the mount: branches topmost first, `rw` for the upper directory, `ro+wh` for layers; pure.

    `ro+wh` makes aufs obey the whiteouts in a layer. Without a writable branch there is no place for the table of inode
    numbers (xino), and none is needed where nothing is copied up.

    Args:
        lower_paths: Base first.
        rootfs_paths: Where the mount and its upper directory are.
        is_read_only: Without an upper directory.
    """
    branches = [(path, "=ro+wh") for path in reversed(lower_paths)]
    if not is_read_only:
        branches.insert(0, (rootfs_paths.upper_dir, "=rw"))
    pieces = [piece for path, mode in branches for piece in (":", path, mode)]
    return Mount(
        fs_type="aufs",
        source="aufs",
        target=rootfs_paths.rootfs_dir,
        options=(Option("br", tuple(pieces[1:])), *([Option("noxino")] if is_read_only else [])),
        flags=MountFlag.READ_ONLY if is_read_only else MountFlag.NONE,
    )
