# SPDX-License-Identifier: Apache-2.0
"""Layers made of this machine's files, and layers made of words."""

import os
import random
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.support.tar import Dir, Entry, File, Whiteout, member_bytes

_WORDS = [f"{first}{second}" for first in ("lay", "root", "mou", "sto", "pro") for second in ("er", "fs", "nt", "re")]
_END = bytes(1024)
_LARGEST_FILE_BYTES = 4_000_000
"""Larger ones would make an image of a handful of files."""


def pack_some(tar_dir: Path, source_dir: Path, *, tar_bytes: Sequence[int]) -> list[Path]:
    """Write layers of about so many bytes each from the regular files below `source_dir`, by name."""
    files = _files(source_dir)
    return [
        _pack_files(tar_dir / f"{number}.tar", source_dir, files, limit_bytes=limit)
        for number, limit in enumerate(tar_bytes)
    ]


def _files(directory: Path) -> Iterator[Path]:
    for parent, directories, names in os.walk(directory):
        directories.sort()
        for name in sorted(names):
            path = Path(parent) / name
            if not path.is_symlink() and path.is_file() and path.stat().st_size <= _LARGEST_FILE_BYTES:
                yield path


def _pack_files(tar_path: Path, root: Path, files: Iterator[Path], *, limit_bytes: int) -> Path:
    packed = 0
    with tarfile.open(tar_path, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in files:
            archive.add(path, arcname=str(path.relative_to(root.parent)), recursive=False, filter=with_plain_time)
            packed += path.stat().st_size
            if packed >= limit_bytes:
                break
    return tar_path


def with_plain_time(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave a time of whole seconds to the plain header, as all builders do but Python, which always adds PAX."""
    if member.mtime == int(member.mtime):
        member.mtime = int(member.mtime)
    return member


def write_many_layers(tar_dir: Path, count: int) -> list[Path]:
    """Write layers that each add, replace and hide some files of the one below."""
    text = random.Random(7)
    return [_write(tar_dir / f"{number}.tar", _one_of_many(number, text)) for number in range(count)]


def _one_of_many(number: int, text: random.Random) -> Iterator[Entry]:
    yield Dir("srv")
    yield File("srv/latest", f"{number}\n".encode())
    yield Dir(f"srv/{number}")
    for name in range(20):
        yield File(f"srv/{number}/{name}", _words(text, 4096))
    if number:
        yield Whiteout(f"srv/{number - 1}/0")


def write_tiny_files(tar_dir: Path, *, directories: int, files_each: int) -> list[Path]:
    """Write one layer of many files of 100 to 1000 bytes."""
    return [_write(tar_dir / "0.tar", _tiny_files(directories, files_each))]


def _tiny_files(directories: int, files_each: int) -> Iterator[Entry]:
    text = random.Random(7)
    yield Dir("data")
    for directory in range(directories):
        yield Dir(f"data/{directory:04}")
        for name in range(files_each):
            yield File(f"data/{directory:04}/{name:04}", _words(text, text.randrange(100, 1000)))


def _words(text: random.Random, size_bytes: int) -> bytes:
    return " ".join(text.choices(_WORDS, k=size_bytes // 6 + 1)).encode()[:size_bytes]


def _write(tar_path: Path, entries: Iterable[Entry]) -> Path:
    with tar_path.open("wb") as tar:
        tar.writelines(map(member_bytes, entries))
        tar.write(_END)
    return tar_path
