# SPDX-License-Identifier: Apache-2.0
"""Copy a file's bytes in the cheapest way the two filesystems allow.

A reflink shares the blocks until one side is written to (Btrfs, XFS, bcachefs, NFSv4.2); copy_file_range(2) stays in
the kernel; reading and writing always works. Holes stay holes.
Source: ioctl_ficlone(2), copy_file_range(2), lseek(2).
"""

import errno
import fcntl
import os
from collections.abc import Iterator

_FICLONE = 0x40049409
_BLOCK_BYTES = 512
_CHUNK_BYTES = 1 << 20
_LONGEST_RANGE_BYTES = 1 << 30
_NOT_HERE = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM, errno.EBADF}
)
"""What kernels and filesystems answer when they cannot clone or copy between these two files."""


def copy_content(source: int, target: int, status: os.stat_result) -> None:
    """Fill the empty file `target` with the bytes of the file `source`.

    Args:
        source: Open for reading.
        target: Open for writing, empty.
        status: Of `source`, which does not change meanwhile.
    """
    if status.st_size == 0 or cloned(source, target):
        return
    os.truncate(target, status.st_size)
    for start, end in _data_ranges(source, status):
        _copy_range(source, target, start, end)


def cloned(source: int, target: int) -> bool:
    """Let the file `target` share all blocks of `source`; tell whether these two filesystems can."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return False
    return True


def _data_ranges(source: int, status: os.stat_result) -> Iterator[tuple[int, int]]:
    """Yield where the file has data; a file that has all its blocks is one range."""
    if status.st_blocks * _BLOCK_BYTES >= status.st_size:
        yield 0, status.st_size
        return
    end = 0
    while end < status.st_size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # Only a hole is left.
        end = os.lseek(source, start, os.SEEK_HOLE)
        yield start, end


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    try:
        while start < end:
            length = min(end - start, _LONGEST_RANGE_BYTES)
            copied = os.copy_file_range(source, target, length, offset_src=start, offset_dst=start)
            if copied == 0:
                break
            start += copied
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
    _copy_by_hand(source, target, start, end)


def _copy_by_hand(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        chunk = os.pread(source, min(end - start, _CHUNK_BYTES), start)
        if not chunk:
            raise OSError(errno.EIO, "file is shorter than its size")
        start += os.pwrite(target, chunk, start)
