# SPDX-License-Identifier: Apache-2.0
"""A file without a name: there while it is used, gone whatever happens."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.descriptors import open_below
from worker.errors import InvalidImage, StorageExhausted
from worker.pullers.spool import spooled


def test_chunks_can_be_read_at_random_and_the_file_has_no_name(tmp_path: Path) -> None:
    """Nothing is in the directory even while the file is used, so that a killed worker leaves nothing."""
    with spooled([b"ab", b"", b"cdef"], spool_dir=tmp_path / "spool", max_bytes=6, image="i") as descriptor:
        assert os.pread(descriptor, 3, 2) == b"cde"
        assert os.fstat(descriptor).st_size == 6
        assert list((tmp_path / "spool").iterdir()) == []

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_more_than_is_allowed_is_refused_before_the_rest_is_taken(tmp_path: Path) -> None:
    """The stream is not read to its end, which may never come."""

    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(1000)

    with (
        pytest.raises(InvalidImage, match="more than the 2500 bytes allowed"),
        spooled(endless(), spool_dir=tmp_path, max_bytes=2500, image="i"),
    ):
        pass


def test_a_failing_source_leaves_nothing_open(tmp_path: Path) -> None:
    """What the source raises comes through, and no descriptor stays."""

    def broken() -> Iterator[bytes]:
        yield b"begun"
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError), spooled(broken(), spool_dir=tmp_path, max_bytes=100, image="i"):
        pass

    assert open_below(tmp_path) == []


@pytest.mark.root
def test_a_full_disk_is_transient(tmp_path: Path) -> None:
    """No room says so, naming the place; a retry can help."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    try:
        with (
            pytest.raises(StorageExhausted, match=str(tmp_path)),
            spooled([bytes(1024 * 1024)], spool_dir=tmp_path, max_bytes=2**30, image="i"),
        ):
            pass
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
