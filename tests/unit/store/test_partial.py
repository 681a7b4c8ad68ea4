# SPDX-License-Identifier: Apache-2.0
"""What arrived of a blob is kept, for one at a time, for as long as there is room."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mounts import unmount
from worker.linux.mount import Mount, Option, mount_filesystem
from worker.oci.digest import Digest
from worker.settings import MIB
from worker.store.partial import Partial, Partials

CHUNKS = [bytes([number]) * 300_000 for number in range(8)]
BLOB = b"".join(CHUNKS)
DIGEST = Digest.of(BLOB)
DAY_SECONDS = 86_400.0


@pytest.fixture
def partials(tmp_path: Path) -> Partials:
    """An empty shelf."""
    return Partials(tmp_path)


def keep(partials: Partials, chunks: list[bytes]) -> None:
    """Let some chunks arrive and go away."""
    with partials.hold(DIGEST, size_bytes=len(BLOB)) as partial:
        assert isinstance(partial, Partial)
        assert list(partial.keeping(iter(chunks))) == chunks


def kept(partials: Partials) -> bytes:
    """Return what is kept."""
    with partials.hold(DIGEST, size_bytes=len(BLOB)) as partial:
        assert isinstance(partial, Partial)
        return b"".join(partial.replay())


def test_what_arrived_is_replayed_and_added_to(partials: Partials) -> None:
    """Over as many attempts as it takes."""
    keep(partials, CHUNKS[:3])
    keep(partials, CHUNKS[3:])

    assert kept(partials) == BLOB


def test_a_chunk_is_kept_before_it_is_used(partials: Partials) -> None:
    """A worker killed while it works on the chunk need not fetch it again."""
    with partials.hold(DIGEST, size_bytes=len(BLOB)) as partial:
        assert isinstance(partial, Partial)
        next(partial.keeping(iter(CHUNKS)))

    assert kept(partials) == CHUNKS[0]


def test_a_second_holder_goes_without(partials: Partials) -> None:
    """Two writers would mix their bytes; nobody waits for a mere cache."""
    with partials.hold(DIGEST, size_bytes=len(BLOB)), partials.hold(DIGEST, size_bytes=len(BLOB)) as second:
        assert second is None


def test_what_is_discarded_is_gone_and_nothing_more_is_kept(partials: Partials, tmp_path: Path) -> None:
    """Also while chunks still come."""
    keep(partials, CHUNKS[:3])

    with partials.hold(DIGEST, size_bytes=len(BLOB)) as partial:
        assert isinstance(partial, Partial)
        partial.discard()
        partial.discard()
        assert list(partial.keeping(iter(CHUNKS))) == CHUNKS
        assert partial.bytes_kept == 0

    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_what_never_began(partials: Partials, tmp_path: Path) -> None:
    """An empty file helps nobody."""
    with partials.hold(DIGEST, size_bytes=len(BLOB)):
        assert len(list(tmp_path.iterdir())) == 1

    assert list(tmp_path.iterdir()) == []


def test_more_than_the_blob_can_have_is_not_believed(partials: Partials, tmp_path: Path) -> None:
    """The next attempt then starts at the first byte."""
    (tmp_path / str(DIGEST)).write_bytes(BLOB + b"x")

    with partials.hold(DIGEST, size_bytes=len(BLOB)) as partial:
        assert isinstance(partial, Partial)
        assert partial.bytes_kept == 0
        assert list(partial.replay()) == []
        list(partial.keeping(iter(CHUNKS)))

    assert kept(partials) == BLOB


@pytest.fixture
def tiny_dir(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 1 MiB."""
    mount_filesystem(Mount(fs_type="tmpfs", source="tmpfs", target=tmp_path, options=(Option("size", "1m"),)))
    yield tmp_path
    unmount([tmp_path])


@pytest.mark.root
def test_a_full_disk_ends_the_keeping_and_not_the_download(tiny_dir: Path) -> None:
    """And frees what was kept, while the download still runs."""
    partials = Partials(tiny_dir)

    with partials.hold(DIGEST, size_bytes=len(BLOB)) as partial:
        assert isinstance(partial, Partial)
        assert b"".join(partial.keeping(iter(CHUNKS))) == BLOB
        assert partial.bytes_kept == 0
        statistics = os.statvfs(tiny_dir)
        assert statistics.f_bavail * statistics.f_frsize > MIB * 3 // 4

    assert list(tiny_dir.iterdir()) == []


def test_a_shelf_that_cannot_be_written_is_no_trouble(tmp_path: Path) -> None:
    """The blob is then streamed without."""
    with Partials(tmp_path / "missing").hold(DIGEST, size_bytes=1) as partial:
        assert partial is None


def test_a_sweep_takes_what_nobody_came_for(partials: Partials, tmp_path: Path) -> None:
    """Not what was added to lately, nor what somebody holds, however slow."""
    old, held, young = (Digest.of(name) for name in (b"old", b"held", b"young"))
    for digest, age_seconds in ((old, 2 * DAY_SECONDS), (held, 2 * DAY_SECONDS), (young, 0.0)):
        path = tmp_path / str(digest)
        path.write_bytes(b"x")
        before = path.stat().st_mtime - age_seconds
        os.utime(path, (before, before))

    with partials.hold(held, size_bytes=1):
        freed_bytes = partials.sweep(unused_seconds=DAY_SECONDS)

    assert freed_bytes == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([str(held), str(young)])
