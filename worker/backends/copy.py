# SPDX-License-Identifier: Apache-2.0
"""A rootfs of its own files: works everywhere, also without root, and takes the time and space of a copy."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from worker.backend import Backend
from worker.backends.assembly import assemble
from worker.backends.bind import bind_read_only
from worker.backends.probe import shares_blocks
from worker.backends.stack import check_stack, take_down
from worker.errors import BackendUnsupported
from worker.image import LayerFormat, LowerDir
from worker.linux import durable
from worker.linux.remove import remove_tree
from worker.linux.statfs import is_mount_point, may_mount
from worker.paths import RootfsPaths

_UNFAITHFUL = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENAMETOOLONG, errno.E2BIG, errno.EMLINK})
"""What filesystems answer when they cannot keep something of the image, such as an extended attribute."""


class CopyBackend(Backend):
    """Differences: a rootfs that refuses writes is a copy beside the rootfs directory, mounted there read-only.

    Limits: read-only needs root. Without root nothing has an owner or is a device, which the layers have given up
    already; a layer's file that its owner may not read cannot be copied.

    Where the filesystem can, a copy shares its blocks with the layers (reflinks) and takes next to no time and space.
    Layers in EROFS format have no files to share blocks with, so there it prefers unpacked ones.
    """

    name: ClassVar[str] = "copy"
    is_bulk: ClassVar[bool] = True
    layer_formats: ClassVar[tuple[LayerFormat, ...]] = (LayerFormat.EROFS, LayerFormat.DIRECTORY)

    @override
    def unsupported_reason(self, *, work_dir: Path, store_dir: Path) -> str | None:
        return None

    @override
    def formats_on(self, *, work_dir: Path, store_dir: Path) -> tuple[LayerFormat, ...]:
        if shares_blocks(work_dir=work_dir, store_dir=store_dir):
            return (LayerFormat.DIRECTORY, LayerFormat.EROFS)
        return self.layer_formats

    @override
    def provision(
        self, lower_dirs: Sequence[LowerDir], rootfs_paths: RootfsPaths, *, is_read_only: bool
    ) -> tuple[Path, ...]:
        check_stack(self, lower_dirs)
        if is_read_only and not may_mount():
            raise BackendUnsupported(backend=self.name, reason="only root can make a rootfs refuse writes")
        tree_dir = _read_only_tree(rootfs_paths) if is_read_only else rootfs_paths.rootfs_dir
        if not tree_dir.exists():
            self._build([lower_dir.path for lower_dir in lower_dirs], tree_dir)
        if is_read_only:
            bind_read_only(tree_dir, rootfs_paths.rootfs_dir)
        return self.ephemeral_volumes(rootfs_paths, is_read_only=is_read_only)

    @override
    def destroy(self, rootfs_paths: RootfsPaths) -> bool:
        return take_down(rootfs_paths)

    @override
    def is_provisioned(self, rootfs_paths: RootfsPaths) -> bool:
        if _read_only_tree(rootfs_paths).exists():
            return is_mount_point(rootfs_paths.rootfs_dir)
        return rootfs_paths.rootfs_dir.exists()

    def _build(self, layer_dirs: Sequence[Path], tree_dir: Path) -> None:
        """Copy beside `tree_dir`, make it durable, rename: what is at `tree_dir` is complete, also after a crash."""
        partial = tree_dir.with_name(f"{tree_dir.name}.partial")
        with durable.reporting_full_disk(tree_dir), self._reporting():
            remove_tree(partial)
            try:
                partial.mkdir(0o700)
                assemble(layer_dirs, partial)
                durable.sync_filesystem(partial.parent)
            except BaseException:
                remove_tree(partial)
                raise
            durable.rename(partial, tree_dir)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _UNFAITHFUL:
                raise
            raise BackendUnsupported(backend=self.name, reason=f"the image cannot be copied: {error}") from error


def _read_only_tree(rootfs_paths: RootfsPaths) -> Path:
    return rootfs_paths.rootfs_home / "tree"
