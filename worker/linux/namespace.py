# SPDX-License-Identifier: Apache-2.0
"""What a process changes for itself and its children only: its view of the mounts, its end with its parent's.

Source: unshare(2), mount_namespaces(7), PR_SET_PDEATHSIG(2const).
"""

import errno
import os
import signal
from pathlib import Path

from worker.linux import libc

_CLONE_NEWNS = 0x00020000
_MS_REC = 1 << 14
_MS_SLAVE = 1 << 19
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1


def unshare_mounts() -> None:
    """Give the calling thread a mount namespace of its own: unmounts elsewhere still arrive, what it does stays here.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN.
    """
    libc.call("unshare", _CLONE_NEWNS)
    libc.call("mount", None, b"/", None, _MS_REC | _MS_SLAVE, None)


def hide_mount(path: Path) -> None:
    """Detach what is mounted at `path`; nothing if nothing is. Meant for a mount namespace of one's own."""
    try:
        libc.call("umount2", os.fsencode(path), _MNT_DETACH)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOENT}:
            raise


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when the thread that forked it ends; it survives an exec.

    Effect: this process is killed at once if that parent is gone already.
    """
    libc.call("prctl", _PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)
