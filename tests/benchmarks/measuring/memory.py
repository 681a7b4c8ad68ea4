# SPDX-License-Identifier: Apache-2.0
"""Make the machine's free memory cost the same for everybody.

A virtual machine may give free pages back to its host; the first touch of such a page costs an exit to the host. One
machine took 0.4 s to touch a GiB of memory freed just before, and 2.8 s for one it had given back: as long as a pull.
"""

import mmap
from pathlib import Path


def warm_memory(size_bytes: int) -> None:
    """Touch so much memory, at most half of what is available, and free it: the kernel hands out that first.

    Cost: a second for some GiB; several where the host has taken them.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, min(size_bytes, _available_bytes() // 2), flags=flags).close()


def _available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
