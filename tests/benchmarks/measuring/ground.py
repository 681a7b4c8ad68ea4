# SPDX-License-Identifier: Apache-2.0
"""Where a peer has its turn: a file system that nobody has used before.

On one that has been used, ext4 passes over inodes that were deleted in the last minutes (`recently_deleted` in
fs/ext4/ialloc.c), one by one: creating 60,000 files took 0.6 s, and 11.5 s after three rounds of creating and removing
them. Who comes after a peer that removed much would pay for it. Nor does a sync here wait for other programs' data.
"""

import math
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.benchmarks.images import Published
from tests.benchmarks.measuring.scratch import remove
from tests.support.mounts import mounts_below
from tests.support.needs import missing_programs
from tests.support.ports import wait_until

Ground = Callable[[], AbstractContextManager[Path]]

_CHUNK = bytes(4 * 1024 * 1024)
_SPARE_BYTES = 1_500_000_000
_SPARE_INODES = 50_000
_COPIES = 3
"""How many times a peer may store an image, in whatever form."""


def some_ground(directory: Path, image: Published, say: Callable[[str], None]) -> Ground:
    """Return a fresh one with room for the image if there can be one; else a used one, and say why."""
    if (reason := missing_ground()) is None:
        return fresh_ground(directory, image)
    say(f"on a used file system, where figures depend on what was removed before: {reason}")
    return used_ground(directory)


def missing_ground() -> str | None:
    """Say why there can be no fresh file system, or None if there can."""
    if not Path("/dev/loop-control").exists():
        return "no loop devices"
    return missing_programs("losetup", "mkfs.ext4", "mount", "umount")


def fresh_ground(directory: Path, image: Published) -> Ground:
    """Reserve room in a file once, and return what makes an ext4 with enough room for the image in it, each time anew.

    The file's blocks are written before, so that nothing has to be allocated below the file system later.
    """
    disk, mount_dir = directory / "disk", directory / "turn"
    blocks = math.ceil((_COPIES * (image.tar_bytes + image.blob_bytes) + _SPARE_BYTES) / len(_CHUNK))
    with disk.open("wb") as file:
        for _ in range(blocks):
            file.write(_CHUNK)
        os.fsync(file.fileno())
    mount_dir.mkdir()

    @contextmanager
    def ground() -> Iterator[Path]:
        inodes = _COPIES * image.entries + _SPARE_INODES
        options = ["-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", "-N", str(inodes)]
        subprocess.run(["mkfs.ext4", "-q", "-F", *options, disk], check=True)
        _mount(disk, mount_dir)
        try:
            yield mount_dir
        finally:
            _unmount(disk, mount_dir)

    return ground


def used_ground(directory: Path) -> Ground:
    """Return what gives a plain directory, where there can be no fresh file system."""

    @contextmanager
    def ground() -> Iterator[Path]:
        turn_dir = directory / "turn"
        turn_dir.mkdir()
        try:
            yield turn_dir
        finally:
            remove(turn_dir)

    return ground


def _mount(disk: Path, mount_dir: Path) -> None:
    command: list[str | Path] = ["losetup", "--find", "--show", "--direct-io=on", disk]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        subprocess.run(["mount", device, mount_dir], check=True)
    finally:
        # It stays for as long as it is mounted.
        subprocess.run(["losetup", "--detach", device], check=True)


def _unmount(disk: Path, mount_dir: Path) -> None:
    """Unmount all in it and it, and wait until the device is free: its file is about to be formatted."""
    for point in reversed(mounts_below(mount_dir)):
        subprocess.run(["umount", point], check=True)
    wait_until(lambda: not _devices(disk), f"release of {disk}")


def _devices(disk: Path) -> str:
    return subprocess.run(["losetup", "--associated", disk], check=True, capture_output=True, text=True).stdout
