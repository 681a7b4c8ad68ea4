# SPDX-License-Identifier: Apache-2.0
"""What the backends that mount share: checks of the stack, the upper directory, taking a rootfs down."""

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from worker.backend import Backend
from worker.errors import BackendUnsupported
from worker.image import LowerDir
from worker.linux.attributes import copy_attributes
from worker.linux.durable import reporting_full_disk
from worker.linux.mount import unmount_tree
from worker.linux.remove import remove_tree
from worker.paths import RootfsPaths


def check_stack(backend: Backend, lower_dirs: Sequence[LowerDir]) -> None:
    """Refuse what no backend can stack, or more than `backend` can.

    Raises:
        BackendUnsupported: No lower directory, too many, or one twice.
    """
    reason = None
    if not lower_dirs:
        reason = "there is no layer to show"
    elif backend.max_lower_dirs is not None and len(lower_dirs) > backend.max_lower_dirs:
        reason = f"it stacks at most {backend.max_lower_dirs} layers, not {len(lower_dirs)}"
    elif len({lower_dir.path for lower_dir in lower_dirs}) < len(lower_dirs):
        reason = "a layer stands twice in the stack"
    if reason is not None:
        raise BackendUnsupported(backend=backend.name, reason=reason)


def make_upper_dir(rootfs_paths: RootfsPaths, *, topmost: Path) -> None:
    """Make the upper directory, which is what the rootfs's root looks like: with the attributes of the topmost layer's.

    Effect: an upper directory that is there stays as it is; a half made one is never at its path.
    """
    if rootfs_paths.upper_dir.is_dir():
        return
    partial = rootfs_paths.upper_dir.with_name("upper.partial")
    with reporting_full_disk(partial):
        remove_tree(partial)
        partial.mkdir(0o700)
        copy_attributes(str(topmost), str(partial), topmost.stat())
        partial.rename(rootfs_paths.upper_dir)


def take_down(rootfs_paths: RootfsPaths) -> bool:
    """Unmount everything at and below the rootfs's home, and move the rootfs out of the way.

    Returns:
        Whether there was a rootfs, or something mounted.

    Raises:
        MountFailed: The kernel refused.
    """
    was_mounted = unmount_tree(rootfs_paths.rootfs_home) > 0
    return _retire(rootfs_paths.rootfs_dir) or was_mounted


def _retire(rootfs_dir: Path) -> bool:
    """Delete the directory if it was only mounted on; else it is the rootfs itself and becomes plain files."""
    with suppress(FileNotFoundError):
        try:
            os.rmdir(rootfs_dir)  # noqa: PTH106 - beside the rename, to which it is the short cut
        except OSError:
            rootfs_dir.rename(rootfs_dir.with_name(f"rootfs.gone-{secrets.token_hex(4)}"))
        return True
    return False
