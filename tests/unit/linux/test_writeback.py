# SPDX-License-Identifier: Apache-2.0
"""Writing back is a hint: it never fails, and never loses anything."""

import os
from pathlib import Path

from worker.linux.writeback import start_writeback


def test_the_content_is_unharmed(tmp_path: Path) -> None:
    """Also beyond the end of the file."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(b"x" * 100_000)
        file.flush()
        start_writeback(file.fileno(), 0, 100_000)
        start_writeback(file.fileno(), 50_000, 1 << 20)

    assert path.read_bytes() == b"x" * 100_000


def test_where_it_is_not_possible_nothing_happens() -> None:
    """A pipe has no range, a negative range is none, a closed descriptor is none."""
    reading, writing = os.pipe()
    start_writeback(writing, 0, 1)
    start_writeback(writing, -1, 1)
    os.close(reading)
    os.close(writing)

    start_writeback(writing, 0, 1)
