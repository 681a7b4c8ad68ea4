# SPDX-License-Identifier: Apache-2.0
"""Mount an EROFS image from plain files, without loop devices.

The kernel reads the files itself (Linux 6.12, CONFIG_EROFS_FS_BACKED_BY_FILE) if they are regular files, and of a
filesystem that is not stacked upon others as overlayfs is. mount(8) must not be asked: it would set up a loop device
for the image, and the kernel then takes no files for the other devices.

Source: kernel 6.12, fs/erofs/super.c, `erofs_fc_get_tree` and `erofs_init_device`.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from worker.errors import MountFailed
from worker.linux import libc
from worker.linux.mount import Mount, MountFlag, Option, mount_filesystem

_MAX_TEXT_BYTES = 255
_MS_PRIVATE = 1 << 18


def mount_erofs(image_path: Path, device_paths: Sequence[Path], target: Path) -> None:
    """Mount the image, with the files that hold its data.

    Effect: the mount appears at the target complete or not at all, on top of what may be mounted there. The files stay
        in use until it is gone, also if they are deleted meanwhile.

    Args:
        image_path: The metadata.
        device_paths: As many as the image has devices, in their order.
        target: An existing directory.

    Raises:
        MountFailed: The kernel refused, with its words.
    """
    with ExitStack() as stack:
        source = _named(image_path, stack)
        options = tuple(Option("device", _named(path, stack)) for path in device_paths)
        mount = Mount(fs_type="erofs", source=source, target=target, options=options, flags=MountFlag.READ_ONLY)
        mount_filesystem(mount)


def make_private(target: Path) -> None:
    """Let what is mounted below `target` stay there: a mount under a shared one would be shared as well.

    Effect: may be called again.

    Raises:
        MountFailed: Nothing is mounted there.
    """
    try:
        libc.call("mount", None, os.fsencode(target), None, _MS_PRIVATE, None)
    except OSError as error:
        raise MountFailed(target=str(target), reason=error.strerror or str(error)) from error


def _named(path: Path, stack: ExitStack) -> str:
    """Return the path, or where fsconfig(2) could not take it the short name of a descriptor that stays open.

    Raises:
        MountFailed: There is no such file.
    """
    if len(os.fsencode(path)) <= _MAX_TEXT_BYTES:
        return str(path)
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise MountFailed(target=str(path), reason=error.strerror or str(error)) from error
    stack.callback(os.close, descriptor)
    return f"/proc/self/fd/{descriptor}"
