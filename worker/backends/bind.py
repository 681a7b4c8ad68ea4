# SPDX-License-Identifier: Apache-2.0
"""One layer shown as it is: the cheapest rootfs there is, and never writable."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from worker.backend import Backend
from worker.backends.probe import probe_dir
from worker.backends.stack import check_stack, take_down
from worker.errors import BackendUnsupported, ProvisionerError
from worker.image import LayerFormat, LowerDir
from worker.linux.durable import reporting_full_disk
from worker.linux.mount import BindMount, MountFlag, mount_bind, receive_and_share, repair_propagation, unmount_tree
from worker.linux.statfs import is_mount_point, is_read_only_mount, may_mount
from worker.paths import RootfsPaths


class BindBackend(Backend):
    """Differences: the rootfs refuses writes whatever `is_read_only` says, as the ancestor's did.

    Limits: root; exactly one layer, without whiteouts, since nothing hides them. Mount points a container needs, such
    as /tmp or /proc, must be in the image.
    """

    name: ClassVar[str] = "bind"
    layer_formats: ClassVar[tuple[LayerFormat, ...]] = (LayerFormat.EROFS, LayerFormat.DIRECTORY)
    is_writable: ClassVar[bool] = False
    max_lower_dirs: ClassVar[int | None] = 1

    @override
    def unsupported_reason(self, *, work_dir: Path, store_dir: Path) -> str | None:
        if not may_mount():
            return "it needs root with the capability CAP_SYS_ADMIN"
        try:
            with probe_dir(work_dir) as home:
                self.provision([LowerDir(path=store_dir)], RootfsPaths(home), is_read_only=True)
        except (OSError, ProvisionerError) as error:
            return f"a trial mount of {store_dir} in {work_dir} failed: {error}"
        return None

    @override
    def provision(
        self, lower_dirs: Sequence[LowerDir], rootfs_paths: RootfsPaths, *, is_read_only: bool
    ) -> tuple[Path, ...]:
        check_stack(self, lower_dirs)
        if lower_dirs[0].has_whiteouts:
            raise BackendUnsupported(backend=self.name, reason="the layer has whiteouts, which it cannot hide")
        bind_read_only(lower_dirs[0].path, rootfs_paths.rootfs_dir)
        return self.ephemeral_volumes(rootfs_paths, is_read_only=is_read_only)

    @override
    def destroy(self, rootfs_paths: RootfsPaths) -> bool:
        return take_down(rootfs_paths)

    @override
    def is_provisioned(self, rootfs_paths: RootfsPaths) -> bool:
        return is_mount_point(rootfs_paths.rootfs_dir) and is_read_only_mount(rootfs_paths.rootfs_dir)


def bind_read_only(source: Path, target: Path) -> None:
    """Show `source` at `target`, refusing writes.

    Effect: a mount that refuses writes and is there already stays; one that a killed caller left writable (possible on
    kernels before 5.12) is made anew.

    Raises:
        MountFailed: The kernel refused.
        StorageExhausted: There was no room for the mount point.
    """
    with reporting_full_disk(target):
        target.mkdir(0o755, exist_ok=True)
    if is_mount_point(target) and not is_read_only_mount(target):
        unmount_tree(target)
    if not is_mount_point(target):
        mount_bind(BindMount(source=source, target=target, flags=MountFlag.READ_ONLY))
        receive_and_share(target)
    else:
        repair_propagation(target)
