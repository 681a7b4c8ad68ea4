# SPDX-License-Identifier: Apache-2.0
"""Filesystems of any kind in files of the test's own, and what the kernel says of a file's extents."""

import fcntl
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.needs import missing_programs
from worker.linux.mount import unmount_tree

_FS_IOC_FIEMAP = 0xC020660B
_FIEMAP_FLAG_SYNC = 1
_FIEMAP_EXTENT_SHARED = 0x2000
_MAP = struct.Struct("=QQLLLL")
"""struct fiemap: start, length, flags, mapped extents, room for extents, reserved."""
_EXTENT = struct.Struct("=QQQQQLLLL")
"""struct fiemap_extent: logical, physical, length, two reserved, flags, three reserved."""
_ROOM = 256


@contextmanager
def loop_filesystem(directory: Path, *mkfs: str, size_bytes: int = 512 << 20, options: str = "loop") -> Iterator[Path]:
    """Make a filesystem with `mkfs` and mount it; skip the test where there is no such program or filesystem."""
    if missing := missing_programs(mkfs[0]):
        pytest.skip(missing)
    image, target = directory / "filesystem.img", directory / "filesystem"
    target.mkdir()
    with image.open("wb") as file:
        file.truncate(size_bytes)
    made = subprocess.run([*mkfs, str(image)], check=False, capture_output=True, text=True)
    mount = ["mount", "-o", options, str(image), str(target)]
    if made.returncode != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip(f"nothing made by {' '.join(mkfs)} can be mounted here {made.stderr}")
    try:
        yield target
    finally:
        unmount_tree(target)


@contextmanager
def after_power_loss(directory: Path, *, options: str = "loop") -> Iterator[Path]:
    """Mount what a power cut at this moment would leave of the filesystem that `loop_filesystem` made.

    The file below the loop device has what the kernel has sent there by now; what is in its caches only is lost.
    """
    with tempfile.TemporaryDirectory(dir=directory) as other:
        image, target = Path(other) / "filesystem.img", Path(other) / "filesystem"
        subprocess.run(["cp", "--sparse=always", directory / "filesystem.img", image], check=True)
        target.mkdir()
        subprocess.run(["mount", "-o", options, image, target], check=True, capture_output=True)
        try:
            yield target
        finally:
            unmount_tree(target)


def shared_bytes(path: Path) -> int:
    """Return how many bytes of the file lie in extents that other files share."""
    request = bytearray(_MAP.pack(0, 2**64 - 1, _FIEMAP_FLAG_SYNC, 0, _ROOM, 0) + bytes(_ROOM * _EXTENT.size))
    with path.open("rb") as file:
        fcntl.ioctl(file, _FS_IOC_FIEMAP, request)
    count = _MAP.unpack_from(request)[3]
    extents = [_EXTENT.unpack_from(request, _MAP.size + number * _EXTENT.size) for number in range(count)]
    return sum(extent[2] for extent in extents if extent[5] & _FIEMAP_EXTENT_SHARED)
