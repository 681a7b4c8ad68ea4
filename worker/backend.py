# SPDX-License-Identifier: Apache-2.0
"""The `Backend` contract: ordered lower directories in, one root filesystem out.

Model
    A *lower directory* is read-only and shared by any number of rootfses. A backend shows the stack of them at
    `rootfs_paths.rootfs_dir` as one tree in which a later directory hides an earlier one. It knows nothing of images,
    stores, containers, records or Redis, and touches nothing outside `rootfs_paths.rootfs_home`.

Lifecycle
    `provision` -> (in use) -> `destroy`. After a reboot `provision` with the same arguments brings the rootfs back with
    everything the container wrote. Both may be killed at any instruction and called again.

Argument names are the same in every implementation:
    lower_dirs: base first; at least one; no duplicates. In the layer format the backend accepts.
    rootfs_paths: `rootfs_home` exists and is empty, or is what an earlier call with the same arguments left.
    is_read_only: the rootfs refuses writes.

Locking
    The caller holds the container's flock for `provision` and `destroy`, so a backend never runs beside itself on the
    same rootfs; on different rootfses it does.

What must fail
    No lower directory; an image that the backend cannot show faithfully (`BackendUnsupported`, nothing left behind).

Example::

    backend = OverlayBackend()
    if (reason := backend.unsupported_reason(work_dir=work_dir, store_dir=store_dir)) is None:
        volumes = backend.provision(lower_dirs, rootfs_paths, is_read_only=False)
        ...
        backend.destroy(rootfs_paths)
"""

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from worker.image import LayerFormat, LowerDir
from worker.paths import RootfsPaths


class Backend(abc.ABC):
    """Turns ordered layers into one rootfs.

    Attributes:
        name: As in settings, requests and records.
        layer_formats: What it can stack, the preferred one first; `formats_on` says which that is on given directories.
        is_writable: Whether a rootfs can be written to when `is_read_only` is false.
        max_lower_dirs: The most it can stack, or None.
        is_bulk: Whether `provision` takes time in proportion to the image.
    """

    name: ClassVar[str]
    layer_formats: ClassVar[tuple[LayerFormat, ...]]
    is_writable: ClassVar[bool] = True
    max_lower_dirs: ClassVar[int | None] = None
    is_bulk: ClassVar[bool] = False

    @abc.abstractmethod
    def unsupported_reason(self, *, work_dir: Path, store_dir: Path) -> str | None:
        """Say why this backend cannot work with rootfses in `work_dir` over layers in `store_dir`, or None if it can.

        Both exist. Probes for real (mounts and unmounts) where the kernel's word is not enough; leaves nothing behind.
        """

    def formats_on(self, *, work_dir: Path, store_dir: Path) -> tuple[LayerFormat, ...]:  # noqa: ARG002 - for those that override it
        """Name what it can stack, the format first that serves it best on these directories. Both exist."""
        return self.layer_formats

    def ephemeral_volumes(self, rootfs_paths: RootfsPaths, *, is_read_only: bool) -> tuple[Path, ...]:  # noqa: ARG002 - for those that override it
        """Name the directories `provision` will use that count towards a disk quota; pure."""
        return ()

    @abc.abstractmethod
    def provision(
        self, lower_dirs: Sequence[LowerDir], rootfs_paths: RootfsPaths, *, is_read_only: bool
    ) -> tuple[Path, ...]:
        """Show the stack at `rootfs_paths.rootfs_dir`.

        Effect: on return the rootfs is there, not necessarily by this call; what a container wrote into it is kept.
        Nothing partial is ever visible at `rootfs_dir`.

        Returns:
            The directories to count towards a disk quota; empty for backends that have none.

        Raises:
            BackendUnsupported: The backend cannot show this stack.
            MountFailed: The kernel refused.
            StorageExhausted: The work directory is full; a retry can help.
        """

    @abc.abstractmethod
    def destroy(self, rootfs_paths: RootfsPaths) -> bool:
        """Take the rootfs down, in use or not, whole or half made.

        Effect: on return nothing is mounted at or below `rootfs_home` and `rootfs_dir` is gone; upper and work
        directories and anything else left in `rootfs_home` are plain files, which the caller deletes.

        Returns:
            Whether there was a rootfs.

        Raises:
            MountFailed: The kernel refused; calling again continues.
        """

    @abc.abstractmethod
    def is_provisioned(self, rootfs_paths: RootfsPaths) -> bool:
        """Tell whether the rootfs is there now, by asking the kernel or the disk, never a record."""
