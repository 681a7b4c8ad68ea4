# SPDX-License-Identifier: Apache-2.0
"""Calls into C raise as `os` does."""

import errno
import os
from pathlib import Path

import pytest

from worker.linux import libc


def test_failing_function_raises_its_errno() -> None:
    """A libc function's -1 becomes an OSError."""
    with pytest.raises(OSError, match="Bad file descriptor") as refusal:
        libc.call("syncfs", -1)

    assert refusal.value.errno == errno.EBADF


def test_unknown_system_call_raises_enosys() -> None:
    """A kernel without the call says so, which callers fall back on."""
    with pytest.raises(OSError, match="not implemented") as refusal:
        libc.system_call(100_000)

    assert refusal.value.errno == errno.ENOSYS


def test_integers_wider_than_32_bits_arrive_whole(tmp_path: Path) -> None:
    """A length beyond 4 GiB is not cut."""
    path = tmp_path / "file"
    path.touch()
    descriptor = os.open(path, os.O_RDWR)

    libc.call("ftruncate", descriptor, 5 << 30)
    os.close(descriptor)

    assert path.stat().st_size == 5 << 30
