# SPDX-License-Identifier: Apache-2.0
"""Files appear whole or not at all."""

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.killing import count_lines, run_killed
from worker.errors import StorageExhausted
from worker.linux import durable
from worker.linux.mount import Mount, Option, mount_filesystem, unmount_tree


@pytest.fixture
def full_dir(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 64 KiB with nothing left."""
    mount_filesystem(Mount(fs_type="tmpfs", source="tmpfs", target=tmp_path, options=(Option("size", "64k"),)))
    (tmp_path / "old").write_bytes(b"old")
    with pytest.raises(OSError, match="No space"):
        (tmp_path / "ballast").write_bytes(bytes(1 << 20))
    yield tmp_path
    unmount_tree(tmp_path)


def test_write_file_creates_and_replaces(tmp_path: Path) -> None:
    """The content and the mode are the last writer's, and nothing lies beside the file."""
    path = tmp_path / "file"

    durable.write_file(path, b"first" * 100_000)
    first = path.read_bytes(), stat.S_IMODE(path.stat().st_mode)
    durable.write_file(path, b"", mode=0o640)

    assert first == (b"first" * 100_000, 0o600)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"", 0o640)
    assert list(tmp_path.iterdir()) == [path]


def test_write_file_takes_the_longest_name(tmp_path: Path) -> None:
    """The temporary name does not grow with the final one."""
    path = tmp_path / ("n" * 255)

    durable.write_file(path, b"content")

    assert path.read_bytes() == b"content"


def test_killed_writer_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """Whatever line was the last, the content is whole, and what else is left can be told by its name."""
    path = tmp_path / "file"
    lines = count_lines(lambda: durable.write_file(path, b"new"))

    for line in range(1, lines + 1):
        path.write_bytes(b"old")
        assert run_killed(lambda: durable.write_file(path, b"new"), at_line=line)

        assert path.read_bytes() in {b"old", b"new"}
        assert all(durable.is_temporary(other.name) for other in tmp_path.iterdir() if other != path)


@pytest.mark.root
def test_full_disk_is_a_transient_error_and_changes_nothing(full_dir: Path) -> None:
    """The old content stays, no temporary file stays, and the error names the path."""
    path = full_dir / "old"
    before = set(full_dir.iterdir())

    with pytest.raises(StorageExhausted, match=f"no room at {path}: No space left on device"):
        durable.write_file(path, bytes(1 << 20))

    assert path.read_bytes() == b"old"
    assert set(full_dir.iterdir()) == before


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """A directory in the way is the caller's error, not litter."""
    (tmp_path / "directory").mkdir()

    with pytest.raises(IsADirectoryError):
        durable.write_file(tmp_path / "directory", b"content")

    assert [path.name for path in tmp_path.iterdir()] == ["directory"]


def test_write_new_never_replaces(tmp_path: Path) -> None:
    """What is there stays, and there is no other file while a new one is written."""
    durable.write_new(tmp_path / "file", b"first" * 100_000, mode=0o640)

    with pytest.raises(FileExistsError):
        durable.write_new(tmp_path / "file", b"second")

    assert (tmp_path / "file").read_bytes() == b"first" * 100_000
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.root
def test_write_new_reports_a_full_disk(full_dir: Path) -> None:
    """As every other writer does; the caller deletes the directory."""
    with pytest.raises(StorageExhausted, match="No space"):
        durable.write_new(full_dir / "new", bytes(1 << 20))


def test_make_dirs_makes_what_is_missing(tmp_path: Path) -> None:
    """Parents get the mode too; a second time, nothing happens."""
    path = tmp_path / "a" / "b" / "c"

    durable.make_dirs(path, mode=0o710)
    durable.make_dirs(path)

    assert [stat.S_IMODE(made.stat().st_mode) for made in (path, path.parent, path.parent.parent)] == [0o710] * 3


def test_make_dirs_does_not_replace_a_file(tmp_path: Path) -> None:
    """A file where a directory should be is an error."""
    (tmp_path / "file").touch()

    with pytest.raises((FileExistsError, NotADirectoryError)):
        durable.make_dirs(tmp_path / "file" / "below")


def test_rename_moves_between_directories(tmp_path: Path) -> None:
    """What was at the source is at the target and nowhere else."""
    (tmp_path / "from" / "tree").mkdir(parents=True)
    (tmp_path / "to").mkdir()

    durable.rename(tmp_path / "from" / "tree", tmp_path / "to" / "tree")

    assert (tmp_path / "to" / "tree").is_dir()
    assert list((tmp_path / "from").iterdir()) == []


def test_rename_never_replaces_a_directory_with_entries(tmp_path: Path) -> None:
    """Two who commit the same thing: the second is told."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "theirs" / "entry").mkdir(parents=True)

    with pytest.raises(OSError, match="not empty"):
        durable.rename(tmp_path / "mine", tmp_path / "theirs")

    assert (tmp_path / "mine").is_dir()


def test_sync_filesystem_takes_files_and_directories(tmp_path: Path) -> None:
    """Any path of the filesystem will do; a missing one is an error."""
    (tmp_path / "file").touch()

    durable.sync_filesystem(tmp_path)
    durable.sync_filesystem(tmp_path / "file")

    with pytest.raises(FileNotFoundError):
        durable.sync_filesystem(tmp_path / "missing")


def test_sync_files_takes_a_directory_of_files(tmp_path: Path) -> None:
    """A link among them is not followed, a missing directory is an error."""
    for name in ("large", "small"):
        (tmp_path / name).write_bytes(b"x" * 100_000)
    (tmp_path / "empty").mkdir()

    durable.sync_files(tmp_path)

    (tmp_path / "link").symlink_to("large")
    with pytest.raises(OSError, match="symbolic links"):
        durable.sync_files(tmp_path)
    with pytest.raises(FileNotFoundError):
        durable.sync_files(tmp_path / "absent")


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_two_paths_change_places(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Whatever they are, in one step."""
    first, second = tmp_path / "a" / "first", tmp_path / "b" / "second"
    for path in (first, second):
        path.parent.mkdir()
        make(path)
    inodes = first.stat().st_ino, second.stat().st_ino

    durable.exchange(first, second)

    assert (second.stat().st_ino, first.stat().st_ino) == inodes
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["a", "first", "b", "second"]


def test_an_exchange_with_nothing_changes_nothing(tmp_path: Path) -> None:
    """As rename(2)."""
    (tmp_path / "first").touch()

    with pytest.raises(FileNotFoundError):
        durable.exchange(tmp_path / "first", tmp_path / "second")

    assert [path.name for path in tmp_path.iterdir()] == ["first"]
