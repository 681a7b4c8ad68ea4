# SPDX-License-Identifier: Apache-2.0
"""What is mounted below a directory, asked of the kernel."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path


def mounts_below(directory: Path) -> list[str]:
    """Return the mount points at or below `directory`, in the order they were mounted."""
    prefix = str(directory.resolve())
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    points = [unescape(line.split(" ")[4]) for line in lines]
    return [point for point in points if point == prefix or point.startswith(prefix + "/")]


def unescape(text: str) -> str:
    r"""Undo the kernel's octal escapes (`\040` for a space)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def unmount(points: Iterable[str]) -> None:
    """Unmount, last one first, in use or not."""
    for point in reversed(list(points)):
        subprocess.run(["umount", "--lazy", point], check=False)
