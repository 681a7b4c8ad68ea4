# SPDX-License-Identifier: Apache-2.0
"""What others read: Python's tarfile in a layer's archive, erofs-utils in the image that is made of it."""

import hashlib
import io
import os
import re
import stat
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.erofs import make_image, mounted, shown
from tests.support.tar import (
    BlockDevice,
    CharDevice,
    Dir,
    Entry,
    Fifo,
    File,
    Hardlink,
    Sparse,
    Symlink,
    Whiteout,
    tar_bytes,
)
from tests.support.trees import Node, tree_snapshot
from tests.unit.layers.erofs.test_image import EVERYTHING

pytestmark = pytest.mark.root

_KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
    tarfile.GNUTYPE_SPARSE: stat.S_IFREG,
}
_XATTR = "SCHILY.xattr."

DIRECTORIES = ("", "d/", "d/e/", "long" * 30 + "/")
NAMES = [directory + name for directory in DIRECTORIES for name in ("f", "g h", "n" * 120, "ü", "\udcff", "z\n")]
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.integers(0, 0o7777),
        "uid": st.sampled_from([1, 70_000, 8**7, 2**32 - 2]),
        "gid": st.sampled_from([1, 70_000, 8**7, 2**32 - 2]),
        "mtime_ns": st.integers(-(2**31) * 10**9, 2**34 * 10**9),
    },
)
XATTRS = st.dictionaries(st.sampled_from(["user.a", "trusted.c", "security.d"]), st.binary(max_size=300), max_size=3)


def _entry(make: Callable[..., Entry], *values: st.SearchStrategy[object], xattrs: bool = False) -> object:
    more = st.tuples(ATTRIBUTES, XATTRS if xattrs else st.just({}))
    return st.builds(
        lambda given, more: lambda path: make(path, *given, **more[0], xattrs=more[1]), st.tuples(*values), more
    )


DEVICE_NUMBERS = (st.integers(1, 4095), st.integers(0, 0xFFFFF))
EXTENTS = st.sampled_from([{0: b""}, {0: b"a" * 600}, {4096: b"b", 9000: b"c" * 1000}])
KINDS = st.one_of(
    _entry(File, st.binary(max_size=3000), xattrs=True),
    _entry(Sparse, st.integers(10_000, 20_000), EXTENTS, xattrs=True),
    _entry(Symlink, st.sampled_from(["f", "/etc", "../ü", "t" * 700])),
    _entry(CharDevice, *DEVICE_NUMBERS),
    _entry(BlockDevice, *DEVICE_NUMBERS),
    _entry(Fifo),
)
"""What makes an entry of a path. A symbolic link's own mode means nothing, to the kernel as to tarfile."""


@st.composite
def layers(draw: st.DrawFn) -> list[Entry]:
    """Draw a layer of entries that each have a name of their own: directories, files, further names of these."""
    entries = [make(path) for path, make in draw(st.dictionaries(st.sampled_from(NAMES), KINDS, max_size=12)).items()]
    for directory, more in draw(st.dictionaries(st.sampled_from((".", *DIRECTORIES[1:])), ATTRIBUTES)).items():
        entries.insert(draw(st.integers(0, len(entries))), Dir(directory, **more, xattrs=draw(XATTRS)))
    files = [entry.path for entry in entries if entry.typeflag != b"5"]
    for number, target in enumerate(draw(st.lists(st.sampled_from(files), max_size=3)) if files else []):
        entries.append(Hardlink(f"d/link-{number}", target))
    return entries


def by_gnu(entries: Sequence[Entry]) -> bytes:
    """Write entries as old GNU tar does, with what its headers can say: long names, binary numbers, whole seconds."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for entry in entries:
            member = tarfile.TarInfo(entry.path)
            member.type, member.linkname, member.mode = entry.typeflag, entry.linkname, entry.mode
            member.uid, member.gid, member.mtime = entry.uid, entry.gid, entry.mtime_ns // 10**9
            member.devmajor, member.devminor = entry.device
            member.size = len(entry.content)
            archive.addfile(member, io.BytesIO(entry.content))
    return file.getvalue()


def reported(archive: tarfile.TarFile) -> dict[str, Node]:
    """Return what tarfile says is at each path.

    Asked otherwise than it answers by itself: a PAX time as it is written, since tarfile makes it a float, which has no
    nanoseconds; attributes, which it hands on as text.
    """
    members = {os.path.normpath(member.name): member for member in archive}
    names: dict[str, list[str]] = {}
    for path, member in members.items():
        names.setdefault(os.path.normpath(member.linkname) if member.islnk() else path, []).append(path)
    return {
        path: _node(archive, members[first], same_as=min(paths)) for first, paths in names.items() for path in paths
    }


def _node(archive: tarfile.TarFile, member: tarfile.TarInfo, *, same_as: str) -> Node:
    kind = _KINDS[member.type]
    xattrs = {name.removeprefix(_XATTR): text for name, text in member.pax_headers.items() if name.startswith(_XATTR)}
    return Node(
        kind=kind,
        mode=0o777 if member.issym() else member.mode,
        uid=member.uid,
        gid=member.gid,
        mtime_ns=int(Decimal(member.pax_headers.get("mtime", member.mtime)) * 10**9),
        content=_content(archive, member),
        xattrs=tuple(sorted((name, text.encode("utf-8", "surrogateescape")) for name, text in xattrs.items())),
        same_as=same_as,
    )


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.isreg():
        file = archive.extractfile(member)
        assert file is not None
        return hashlib.sha256(file.read()).hexdigest()
    if member.isdir() or member.issym():
        return member.linkname
    return str(os.makedev(member.devmajor, member.devminor))


@given(entries=layers(), write=st.sampled_from([tar_bytes, by_gnu]))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_tar_looks_mounted_as_tarfile_reads_it(
    entries: list[Entry], write: Callable[[Sequence[Entry]], bytes], erofs_dir: Path
) -> None:
    """Type, mode, owner, time, size, content, targets, numbers, attributes, and which names are one file."""
    tar = write(entries)
    with TemporaryDirectory(dir=erofs_dir) as directory, tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        expected = reported(archive)
        with shown([tar], Path(directory)) as tree:
            seen = tree_snapshot(tree)
            sizes = {path: (tree / path).lstat().st_size for path, node in seen.items() if node.kind == stat.S_IFREG}

        assert {path: seen[path] for path in expected} == expected
        unlisted = {path: node for path, node in seen.items() if path not in expected}
        assert {(node.kind, node.mode, node.uid, node.gid, node.mtime_ns) for node in unlisted.values()} <= {
            (stat.S_IFDIR, 0o755, 0, 0, 0)
        }
        assert {path: size for path, size in sizes.items() if path == seen[path].same_as} == {
            expected[path].same_as: archive.getmember(path).size for path in expected if archive.getmember(path).isreg()
        }


@pytest.mark.erofs_utils
def test_erofs_utils_find_nothing_wrong_and_extract_what_is_mounted(erofs_dir: Path) -> None:
    """From 1.7 on. Older ones, as Debian 12 has, know no blocks smaller than a page, and say so."""
    sparse = Sparse("sparse", 300_000, {100_000: b"data"})
    many = [File(f"many/{n:04d}" + "x" * (n % 200), b"y" * n) for n in range(1000)]
    image = make_image([EVERYTHING, [*many, sparse], [Whiteout("tmp/su"), File("top")]], erofs_dir)
    devices = [f"--device={path}" for path in image.device_paths]

    check = ["fsck.erofs", *devices, f"--extract={erofs_dir / 'extracted'}", "--preserve", image.image_path]
    checked = subprocess.run(check, check=False, capture_output=True, text=True)
    dumped = subprocess.run(["dump.erofs", "-s", image.image_path], check=False, capture_output=True, text=True)

    if _version() < (1, 7):
        assert checked.returncode != 0
        assert "blksize 512 isn't supported" in checked.stderr
        assert "blksize 512 isn't supported" in dumped.stderr
        return
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "sb_csum mtime" in dumped.stdout
    with mounted(image, erofs_dir / "mount") as tree:
        assert _without_times(tree_snapshot(erofs_dir / "extracted")) == _without_times(tree_snapshot(tree))


def _version() -> tuple[int, ...]:
    printed = subprocess.run(["fsck.erofs", "-V"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"(\d+)\.(\d+)", printed)
    assert found, printed
    return tuple(map(int, found.groups()))


def _without_times(nodes: dict[str, Node]) -> dict[str, Node]:
    """Leave out what extracting loses: attributes, and the times of directories."""
    return {path: replace(node, xattrs=(), mtime_ns=0) for path, node in nodes.items()}
