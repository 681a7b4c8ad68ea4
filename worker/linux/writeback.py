# SPDX-License-Identifier: Apache-2.0
"""Ask the kernel to start writing to disk what a file has in the page cache.

Source: sync_file_range(2).
"""

from contextlib import suppress

from worker.linux import libc

_SYNC_FILE_RANGE_WRITE = 2


def start_writeback(descriptor: int, offset: int, length: int) -> None:
    """Start writing the range to disk, waiting at most for room in the disk's queue; a length of 0 goes to the end.

    Effect: a hint. Nothing is durable by it, and where there is no such call or no such filesystem nothing happens; an
    error of the disk shows at the next fsync.
    """
    with suppress(OSError, AttributeError):
        libc.call("sync_file_range", descriptor, offset, length, _SYNC_FILE_RANGE_WRITE)
