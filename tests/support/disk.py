# SPDX-License-Identifier: Apache-2.0
"""What trees take on disk, as coreutils has it; and a disk that refuses."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def du(path: Path) -> int:
    """Return the bytes of a tree on one filesystem: blocks, each file once."""
    answer = subprocess.run(["du", "-sxB1", path], capture_output=True, text=True, check=True)
    return int(answer.stdout.split()[0])


@contextmanager
def immutable(directory: Path) -> Iterator[None]:
    """Let the filesystem refuse whatever would change the directory, as a broken disk does."""
    made = subprocess.run(["chattr", "+i", str(directory)], check=False, capture_output=True)
    if made.returncode != 0:
        pytest.skip("this filesystem has no immutable directories")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(directory)], check=True)
