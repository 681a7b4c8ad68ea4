# SPDX-License-Identifier: Apache-2.0
"""Look into a directory tree whose content nobody vouches for, as if it were the root directory.

A symbolic link in it leads to somewhere in it and nowhere else: `/etc/passwd` may be a link to `/etc/shadow`, and is
then the tree's own.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.linux.openat2 import open_in_root

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})


def read_file_inside(root_dir: Path, path: str, *, max_bytes: int) -> bytes | None:
    """Read a regular file at `path` in the tree; None if there is nothing.

    Anything else that may be there, such as a device or a fifo, is looked at without being opened.

    Raises:
        OSError: EINVAL if it is no regular file, EFBIG if it has more than `max_bytes`, ELOOP for a circle of links.
    """
    with opened_inside(root_dir, path) as place:
        if place is None:
            return None
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        with open(f"/proc/self/fd/{place}", "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor's magic link
            return _read_all(file.fileno(), max_bytes)


@contextmanager
def opened_inside(root_dir: Path, path: str) -> Iterator[int | None]:
    """Lend an O_PATH descriptor of what is at `path` in the tree; None if there is nothing.

    Raises:
        OSError: ELOOP for a circle of links.
    """
    root_fd = os.open(root_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        place = open_in_root(path, root_fd=root_fd, flags=os.O_PATH)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        place = None
    finally:
        os.close(root_fd)
    try:
        yield place
    finally:
        if place is not None:
            os.close(place)


def _read_all(descriptor: int, max_bytes: int) -> bytes:
    content = bytearray()
    while chunk := os.read(descriptor, max_bytes + 1 - len(content)):
        content += chunk
        if len(content) > max_bytes:
            raise OSError(errno.EFBIG, f"it has more than {max_bytes} bytes")
    return bytes(content)
