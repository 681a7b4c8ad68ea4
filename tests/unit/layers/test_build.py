# SPDX-License-Identifier: Apache-2.0
"""`build_layer`: what it refuses, what it verifies and what it leaves behind."""

import errno
import gzip
import os
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.support.descriptors import open_below
from tests.support.tar import (
    BLOCK,
    CharDevice,
    Dir,
    Entry,
    Fifo,
    File,
    Hardlink,
    Opaque,
    Symlink,
    Whiteout,
    header,
    member_bytes,
    padded,
    pax_record,
    tar_bytes,
)
from tests.unit.layers.harness import (
    build,
    build_blob,
    chunked,
    descriptor_of,
    limits,
    shape,
    snapshot,
)
from worker.errors import (
    DigestMismatch,
    InvalidLayer,
    LayerLimitExceeded,
    ProvisionerError,
    SizeMismatch,
    StorageExhausted,
)
from worker.image import LayerFormat
from worker.layers.record import read_record
from worker.oci.digest import Digest

END = bytes(2 * BLOCK)
ENTRIES = (
    Dir("etc"),
    File("etc/passwd", b"root:x:0:0\n", mtime_ns=1_700_000_000_123_456_789),
    Symlink("etc/mtab", "../proc/mounts"),
    File("big", os.urandom(300_000)),
)


def pax(records: bytes, typeflag: bytes = b"x") -> bytes:
    """Return an extended header."""
    return header(b"PaxHeaders/0", typeflag=typeflag, size=len(records)) + padded(records)


def gnu_long(text: bytes, typeflag: bytes = b"L") -> bytes:
    """Return a GNU long name."""
    return header(b"././@LongLink", typeflag=typeflag, size=len(text)) + padded(text)


def patched(block: bytes, offset: int, field: bytes) -> bytes:
    """Return a header with a field replaced and its checksum made right again."""
    changed = bytearray(block)
    changed[offset : offset + len(field)] = field
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed)
    return bytes(changed)


def named(name: bytes, **fields: Any) -> bytes:
    """Return an archive of one empty entry of this very name."""
    return header(name, **({"typeflag": b"0"} | fields)) + END


def pax_named(name: bytes, **fields: Any) -> bytes:
    """Return an archive of one empty entry whose name stands in a PAX header."""
    return pax(pax_record("path", name)) + named(b"short", **fields)


def linked(*entries: Entry) -> bytes:
    """Return an archive of `entries`."""
    return tar_bytes(entries)


PLAIN = header(b"file", typeflag=b"0")
GNU_SPARSE = patched(patched(header(b"sparse", typeflag=b"S", size=4), 257, b"ustar  \0"), 483, b"%011o\0" % 100)


def gnu_sparse(pairs: list[tuple[int, int]], *, size: int = 4, real_size: int = 100) -> bytes:
    """Return an old GNU sparse member with `size` bytes of data."""
    table = b"".join(b"%011o\0%011o\0" % pair for pair in pairs)
    block = patched(header(b"sparse", typeflag=b"S", size=size), 257, b"ustar  \0")
    return patched(patched(block, 386, table), 483, b"%011o\0" % real_size) + padded(b"d" * size) + END


def pax_sparse(records: bytes, data: bytes) -> bytes:
    """Return a PAX sparse member."""
    return pax(records) + header(b"sparse", typeflag=b"0", size=len(data)) + padded(data) + END


VERSION_1 = pax_record("GNU.sparse.major", b"1") + pax_record("GNU.sparse.minor", b"0")
REAL_100 = pax_record("GNU.sparse.realsize", b"100")

HOSTILE = {
    # Names.
    "parent climbs": (named(b"../etc/passwd"), "climbs"),
    "climbs after a directory": (named(b"a/../../etc/passwd"), "climbs"),
    "climbs inside the layer only": (named(b"a/../b"), "climbs"),
    "climbs at the end": (named(b"a/.."), "climbs"),
    "is the parent": (named(b".."), "climbs"),
    "absolute and climbing": (named(b"/../../etc/passwd"), "climbs"),
    "climbs by PAX path": (pax_named(b"../x"), "climbs"),
    "climbs by GNU long name": (gnu_long(b"../" + b"a" * 120 + b"\0") + PLAIN + END, "climbs"),
    "climbs by ustar prefix": (patched(PLAIN, 345, b"../..") + END, "climbs"),
    "climbing directory": (named(b"../evil/", typeflag=b"5"), "climbs"),
    "climbing symbolic link": (linked(Symlink("../evil", "/etc")), "climbs"),
    "climbing fifo": (linked(Fifo("../evil")), "climbs"),
    "empty name": (named(b""), "without a name"),
    "NUL in a PAX path": (pax_named(b"good\0../evil"), "NUL"),
    "NUL in a GNU long name": (gnu_long(b"good\0evil\0") + PLAIN + END, "NUL"),
    "component of 256 bytes": (pax_named(b"a" * 256), "too long"),
    "component of 256 bytes in the middle": (pax_named(b"x/" + b"a" * 256 + b"/y"), "too long"),
    "path of 4,097 bytes": (pax_named(b"/".join([b"a" * 255] * 16) + b"/b"), "too long"),
    # The root.
    "root is a symbolic link": (linked(Symlink(".", "/etc")), "root of the layer"),
    "root by slash is a symbolic link": (linked(Symlink("/", "/etc")), "root of the layer"),
    "root is a file": (named(b"./"), "root of the layer"),
    "root is a hard link": (linked(Dir("a"), Hardlink(".", "a")), "root of the layer"),
    "root by PAX is a fifo": (pax_named(b"./.", typeflag=b"6"), "root of the layer"),
    # Hard links.
    "hard link climbs": (linked(Hardlink("a", "../../etc/passwd")), "climbs"),
    "hard link to an absolute path outside": (linked(Hardlink("a", "/etc/passwd")), "not in this layer"),
    "hard link before its target": (linked(Hardlink("b", "a"), File("a")), "not in this layer"),
    "hard link to nothing": (linked(Hardlink("b", "a")), "not in this layer"),
    "hard link to itself": (linked(File("a"), Hardlink("a", "./a")), "itself"),
    "hard link to itself alone": (linked(Hardlink("a", "a")), "itself"),
    "hard link to a directory": (linked(Dir("d"), Hardlink("a", "d")), "directory"),
    "hard link to the root": (linked(Hardlink("a", ".")), "not in this layer"),
    "hard link through a symbolic link": (
        linked(Dir("d"), File("d/f"), Symlink("s", "d"), Hardlink("a", "s/f")),
        "not in this layer",
    ),
    "hard link through a link to the host": (
        linked(Symlink("s", "/etc"), Hardlink("a", "s/passwd")),
        "not in this layer",
    ),
    "hard link to a whiteout": (linked(Whiteout("w"), Hardlink("a", "w")), "whiteout"),
    "hard link to a whiteout's name": (linked(Whiteout("w"), Hardlink("a", ".wh.w")), "not in this layer"),
    "hard link replaces its target's directory": (
        linked(Dir("d"), File("d/f"), Hardlink("d", "d/f")),
        "holds its target",
    ),
    "hard link without a target": (named(b"a", typeflag=b"1"), "without a target"),
    "NUL in a PAX link path": (
        pax(pax_record("linkpath", b"a\0b")) + named(b"l", typeflag=b"2", linkname=b"x"),
        "NUL",
    ),
    "symbolic link without a target": (named(b"a", typeflag=b"2"), "without a target"),
    "symbolic link of 5,000 bytes": (linked(Symlink("a", "x" * 5000)), "too long"),
    # Whiteouts.
    "whiteout of nothing": (named(b".wh."), "whiteout of no name"),
    "whiteout of the directory itself": (named(b"d/.wh.."), "whiteout of no name"),
    "whiteout of the parent": (named(b"d/.wh..."), "whiteout of no name"),
    "name below a whiteout": (named(b".wh.a/b"), "through a whiteout"),
    "climbing whiteout": (named(b"../.wh.etc"), "climbs"),
    "forged whiteout device": (linked(CharDevice("gone", 0, 0)), "disguise"),
    "forged whiteout device of V7": (patched(named(b"gone", typeflag=b"3")[:BLOCK], 257, bytes(8)) + END, "disguise"),
    # Numbers.
    "checksum wrong": (b"x" + PLAIN[1:] + END, "checksum"),
    "checksum no number": (PLAIN[:148] + b"zzzzzzzz" + PLAIN[156:] + END, "octal"),
    "size no number": (patched(PLAIN, 124, b"0x1\0") + END, "octal"),
    "size with a sign": (patched(PLAIN, 124, b"-1\0") + END, "octal"),
    "size with an underscore": (patched(PLAIN, 124, b"1_0\0") + END, "octal"),
    "negative base-256 size": (patched(PLAIN, 124, b"\xff" * 12) + END, "out of range"),
    "base-256 size of 2**63": (patched(PLAIN, 124, b"\x80\0\0\0" + (2**63).to_bytes(8, "big")) + END, "out of range"),
    "negative PAX size": (pax(pax_record("size", b"-1")) + PLAIN + END, "no number"),
    "PAX size of a hundred digits": (pax(pax_record("size", b"9" * 100)) + PLAIN + END, "no number"),
    "negative directory size": (patched(header(b"d/", typeflag=b"5"), 124, b"\xff" * 12) + END, "out of range"),
    "uid of 2**32 - 1": (pax(pax_record("uid", b"4294967295")) + PLAIN + END, "out of range"),
    "uid of 2**32, root's in 32 bits": (pax(pax_record("uid", b"4294967296")) + PLAIN + END, "out of range"),
    "gid of 2**63": (pax(pax_record("gid", b"9223372036854775808")) + PLAIN + END, "out of range"),
    "negative base-256 uid": (patched(PLAIN, 108, b"\xff" * 8) + END, "out of range"),
    "uid with a plus": (pax(pax_record("uid", b"+1")) + PLAIN + END, "no number"),
    "time in words": (pax(pax_record("mtime", b"now")) + PLAIN + END, "no time"),
    "time in exponents": (pax(pax_record("mtime", b"1e9")) + PLAIN + END, "no time"),
    "time of 2**64 seconds": (pax(pax_record("mtime", b"18446744073709551616")) + PLAIN + END, "time"),
    "base-256 time of 2**80": (patched(PLAIN, 136, b"\x80\x01" + bytes(10)) + END, "out of range"),
    "device number out of range": (linked(CharDevice("d", 5000, 1)), "out of range"),
    # Extended headers.
    "PAX record without a length": (pax(b"path=x\n") + PLAIN + END, "no number"),
    "PAX record longer than its header": (pax(b"99 path=x\n") + PLAIN + END, "malformed"),
    "PAX record of no length": (pax(b"0 path=x\n") + PLAIN + END, "malformed"),
    "PAX record without a newline": (pax(b"9 path=xy") + PLAIN + END, "malformed"),
    "PAX record without a value": (pax(b"7 path\n") + PLAIN + END, "malformed"),
    "PAX record without a key": (pax(b"5 =x\n") + PLAIN + END, "malformed"),
    "PAX record with NUL in its key": (pax(b"10 pa\0th=x\n"[:10] + b"\n") + PLAIN + END, "malformed"),
    "PAX record of a huge length": (pax(b"99999999999999999999 path=x\n") + PLAIN + END, "no number"),
    "two PAX headers": (pax(pax_record("path", b"a")) * 2 + PLAIN + END, "two extended headers"),
    "two GNU long names": (gnu_long(b"a\0") * 2 + PLAIN + END, "two extended headers"),
    "GNU and PAX disagree on the name": (
        gnu_long(b"a\0") + pax(pax_record("path", b"b")) + PLAIN + END,
        "two long names",
    ),
    "global path": (pax(pax_record("path", b"a"), b"g") + PLAIN + END, "global header sets path"),
    "global size": (pax(pax_record("size", b"512"), b"g") + PLAIN + END, "global header sets size"),
    "global xattr": (
        pax(pax_record("SCHILY.xattr.user.a", b"x"), b"g") + PLAIN + END,
        "global header sets SCHILY",
    ),
    "PAX header before the end": (pax(pax_record("path", b"a")) + END, "ends after an extended header"),
    "long name before the end": (gnu_long(b"a\0"), "ends after an extended header"),
    "extended header of negative size": (patched(PLAIN, 156, b"x")[:124] + b"", "cut off"),
    "xattr without a name": (pax(pax_record("SCHILY.xattr.", b"v")) + PLAIN + END, "proper name"),
    "xattr no base64": (pax(pax_record("LIBARCHIVE.xattr.user.a", b"*!*")) + PLAIN + END, "base64"),
    "xattr name of 300 bytes": (pax(pax_record("SCHILY.xattr.user." + "a" * 300, b"v")) + PLAIN + END, "name"),
    # Sparse files.
    "sparse map out of order": (gnu_sparse([(50, 2), (10, 2)]), "out of order"),
    "sparse map overlapping": (gnu_sparse([(10, 3), (12, 1)]), "out of order"),
    "sparse map beyond its file": (gnu_sparse([(98, 4)]), "beyond its file"),
    "sparse map without all data": (gnu_sparse([(0, 2)]), "does not fit"),
    "sparse map of more than the data": (gnu_sparse([(0, 8)]), "does not fit"),
    "sparse 0.1 map of half a pair": (
        pax_sparse(REAL_100 + pax_record("GNU.sparse.map", b"0,2,5"), b"da"),
        "half a pair",
    ),
    "sparse 0.1 map of words": (pax_sparse(REAL_100 + pax_record("GNU.sparse.map", b"a,b"), b""), "no number"),
    "sparse 0.0 map out of step": (
        pax_sparse(REAL_100 + pax_record("GNU.sparse.numbytes", b"1"), b"d"),
        "out of step",
    ),
    "sparse 1.0 map without numbers": (pax_sparse(VERSION_1 + REAL_100, b"x" * 2048), "no numbers"),
    "sparse 1.0 map of fewer pairs than it says": (pax_sparse(VERSION_1 + REAL_100, b"9\n0\n"), "no numbers"),
    "sparse 1.0 map that takes the next header": (
        pax(VERSION_1 + REAL_100) + header(b"sparse", typeflag=b"0", size=0) + padded(b"0\n") + END,
        "does not fit",
    ),
    "sparse file without a size": (pax_sparse(pax_record("GNU.sparse.map", b"0,1"), b"d"), "no size"),
    "sparse format 2.0": (pax_sparse(pax_record("GNU.sparse.major", b"2") + REAL_100, b""), "unknown format"),
    # The archive.
    "cut off in a header": (PLAIN[:300], "cut off"),
    "cut off in data": (header(b"f", typeflag=b"0", size=1000) + b"x" * 512, "cut off"),
    "cut off before the padding": (header(b"f", typeflag=b"0", size=10) + b"x" * 10, "cut off"),
    "cut off in an extended header": (header(b"f", typeflag=b"x", size=1000) + b"x" * 512, "cut off"),
    "zeros between entries": (PLAIN + bytes(BLOCK) + PLAIN + END, "zeros"),
    "no archive": (b"this is not a tar archive".ljust(1024), "checksum"),
    "vendor's entry type": (named(b"a", typeflag=b"Z"), "not supported"),
    "GNU dump directory": (named(b"a", typeflag=b"D"), "not supported"),
    "GNU multi-volume part": (named(b"a", typeflag=b"M"), "not supported"),
    "socket": (named(b"a", typeflag=b"s"), "not supported"),
    "data where a hard link has none": (
        header(b"a", typeflag=b"1", size=512, linkname=b"b") + padded(b"x") + END,
        "not in this layer",
    ),
}


@pytest.mark.parametrize(("archive", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused_by_name_and_reaches_nothing_outside(
    archive: bytes, reason: str, tmp_path: Path
) -> None:
    """What breaks the format or leaves the layer is `InvalidLayer`, whatever stood before it."""
    staging_dir = tmp_path / "staging"
    staging_dir.mkdir()
    (tmp_path / "etc").mkdir()
    prefix = tar_bytes([Dir("ok"), File("ok/first", b"1")])[:-1024]

    with pytest.raises(InvalidLayer, match=reason):
        build(prefix + archive, staging_dir)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["etc", "staging"]
    assert not list((tmp_path / "etc").iterdir())
    assert not (staging_dir / "layer.json").exists()


BOMBS = {
    "PAX header claims 4 GB": (
        header(b"f", typeflag=b"x", size=4 << 30) + bytes(4096),
        {},
        "extended header",
    ),
    "GNU long name claims 4 GB": (header(b"f", typeflag=b"L", size=4 << 30), {}, "extended header"),
    "file claims more than a layer may have": (
        header(b"f", typeflag=b"0", size=4 << 30),
        {},
        "uncompressed bytes",
    ),
    "sparse file claims 2**60 bytes": (
        patched(gnu_sparse([(0, 4)])[:BLOCK], 483, b"\x80\0\0\0" + (2**60).to_bytes(8, "big")) + padded(b"dddd") + END,
        {},
        "holes",
    ),
    "sparse files add up": (
        b"".join(gnu_sparse([(0, 4)], real_size=40 << 20)[:-1024] for _ in range(2)) + END,
        {},
        "holes",
    ),
    "sparse map without end": (
        patched(GNU_SPARSE, 482, b"\1") + (bytes(504) + b"\1" + bytes(7)) * 200,
        {},
        "sparse map",
    ),
    "sparse 1.0 map without end": (
        pax(VERSION_1 + REAL_100) + header(b"s", typeflag=b"0", size=1 << 20) + b"99999\n77" + b"7\n" * 10_000,
        {"max_header_bytes": 2048},
        "sparse map",
    ),
    "too many entries": (tar_bytes(File(str(n)) for n in range(5)), {"max_entries": 4}, "entries of 4"),
    "global headers count": (pax(b"", b"g") * 5 + PLAIN + END, {"max_entries": 4}, "entries of 4"),
    "too many bytes after the end": (PLAIN + END + bytes(10_000), {"max_layer_bytes": 5000}, "uncompressed bytes"),
    "deep names imply too much": (
        b"".join(pax_named(b"/".join([b"%d" % n] + [b"a"] * 1000))[:-1024] for n in range(3)) + END,
        {"max_implied_bytes": 1 << 20},
        "unlisted directories",
    ),
}


@pytest.mark.parametrize(("archive", "changes", "limit"), BOMBS.values(), ids=BOMBS)
def test_a_layer_beyond_a_limit_is_refused_without_the_memory_it_asks_for(
    archive: bytes, changes: dict[str, int], limit: str, tmp_path: Path
) -> None:
    """`LayerLimitExceeded` names the limit; what a header claims is never allocated."""
    tracemalloc.start()

    with pytest.raises(LayerLimitExceeded, match=limit):
        build(archive, tmp_path, limits=limits(**changes))

    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 8 << 20


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip in members": lambda tar: b"".join(gzip.compress(piece) for piece in chunked(tar, 10_000)),
    "gzip with zeros after it": lambda tar: gzip.compress(tar) + bytes(70_000),
    "gzip with an empty member": lambda tar: gzip.compress(b"") + gzip.compress(tar) + gzip.compress(b""),
    "zstd": lambda tar: zstandard.ZstdCompressor().compress(tar),
    "zstd in frames": lambda tar: b"".join(
        zstandard.ZstdCompressor().compress(piece) for piece in chunked(tar, 10_000)
    ),
    "zstd with skippable frames": lambda tar: (
        b"\x50\x2a\x4d\x18\3\0\0\0abc" + zstandard.ZstdCompressor().compress(tar) + b"\x5f\x2a\x4d\x18\1\0\0\0z"
    ),
}


@pytest.mark.parametrize("chunk_bytes", [1, 777, 1 << 20])
@pytest.mark.parametrize("compress", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_a_layer_is_the_same_however_it_was_compressed_and_cut(
    compress: Callable[[bytes], bytes], chunk_bytes: int, tmp_path: Path
) -> None:
    """Compression is told by magic bytes; the record says what came in and what came of it."""
    tar = tar_bytes(ENTRIES[:3])
    blob = compress(tar)
    progress: list[int] = []

    record = build_blob(
        blob, tmp_path, diff_id=Digest.of(tar), chunks=chunked(blob, chunk_bytes), on_progress=progress.append
    )

    assert shape(tmp_path) == {"etc": "directory", "etc/passwd": b"root:x:0:0\n", "etc/mtab": "../proc/mounts"}
    assert (record.blob_bytes, record.tar_bytes, record.entries) == (len(blob), len(tar), 3)
    assert sum(progress) == len(blob)
    assert read_record(tmp_path / "layer.json") == record


@pytest.mark.parametrize("name", ["plain", "gzip", "zstd"])
@pytest.mark.parametrize("where", [0.0, 0.1, 0.5, 0.999])
def test_a_blob_with_a_flipped_bit_is_blamed_by_its_digest(name: str, where: float, tmp_path: Path) -> None:
    """Damage on the way is no fault of the layer, wherever it is noticed first."""
    tar = tar_bytes(ENTRIES)
    blob = COMPRESSIONS[name](tar)
    damaged = bytearray(blob)
    damaged[int(where * len(blob))] ^= 0x10

    with pytest.raises(DigestMismatch, match="layer blob"):
        build_blob(bytes(damaged), tmp_path, diff_id=Digest.of(tar), descriptor=descriptor_of(blob))


@pytest.mark.parametrize("name", ["plain", "gzip", "zstd"])
@pytest.mark.parametrize("kept", [0, 1, 600, 0.5, -1])
def test_a_blob_that_ends_early_is_blamed_by_its_size(name: str, kept: float, tmp_path: Path) -> None:
    """A transfer that broke off shows as `SizeMismatch`, not as a corrupt archive."""
    tar = tar_bytes(ENTRIES)
    blob = COMPRESSIONS[name](tar)
    cut = blob[: int(kept * len(blob)) if isinstance(kept, float) else kept]

    with pytest.raises(SizeMismatch):
        build_blob(cut, tmp_path, diff_id=Digest.of(tar), descriptor=descriptor_of(blob))


@pytest.mark.parametrize("name", ["plain", "gzip", "zstd"])
def test_a_blob_that_does_not_end_is_given_up_at_the_first_byte_too_many(name: str, tmp_path: Path) -> None:
    """An endless body is not read to its end."""
    tar = tar_bytes(ENTRIES)
    blob = COMPRESSIONS[name](tar)
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield blob
        while True:
            taken += 1
            yield bytes(1000)

    with pytest.raises(SizeMismatch):
        build_blob(blob, tmp_path, diff_id=Digest.of(tar), chunks=endless())
    assert taken == 1


@pytest.mark.parametrize("name", ["plain", "gzip", "zstd"])
def test_a_tar_that_is_not_its_diff_id_s_is_refused(name: str, tmp_path: Path) -> None:
    """The blob's digest says nothing about the uncompressed tar: a configuration may name another one."""
    tar = tar_bytes(ENTRIES)

    with pytest.raises(DigestMismatch, match="uncompressed layer"):
        build_blob(COMPRESSIONS[name](tar), tmp_path, diff_id=Digest.of(tar + bytes(512)))
    assert not (tmp_path / "layer.json").exists()


def test_what_follows_the_end_of_the_archive_counts_for_the_diff_id(tmp_path: Path) -> None:
    """GNU tar pads to 10 KiB, others append what they like: the DiffID covers all of it."""
    tar = tar_bytes(ENTRIES) + b"anything" * 10_000
    blob = gzip.compress(tar)

    record = build_blob(blob, tmp_path, diff_id=Digest.of(tar))

    assert record.tar_bytes == len(tar)


CORRUPT = {
    "gzip cut off by its author": (gzip.compress(tar_bytes(ENTRIES))[:-20], "cut off"),
    "gzip with a wrong checksum": (
        gzip.compress(tar_bytes(ENTRIES))[:-8] + b"\1\2\3\4" + gzip.compress(tar_bytes(ENTRIES))[-4:],
        "corrupt",
    ),
    "gzip with garbage after it": (gzip.compress(tar_bytes(ENTRIES)) + b"garbage " * 9, "corrupt"),
    "gzip with garbage after zeros": (gzip.compress(tar_bytes(ENTRIES)) + bytes(9) + b"garbage!", "corrupt|cut off"),
    "gzip of nothing more than its magic": (b"\x1f\x8b", "cut off|corrupt"),
    "zstd with garbage after it": (zstandard.ZstdCompressor().compress(tar_bytes(ENTRIES)) + b"garbage!!", "corrupt"),
    "zstd of garbage": (b"\x28\xb5\x2f\xfd" + b"\xff" * 100, "corrupt"),
    "xz": (b"\xfd7zXZ\0" + bytes(100), "xz"),
    "bzip2": (b"BZh91AY&SY" + bytes(100), "bzip2"),
    "zlib": (zlib.compress(tar_bytes(ENTRIES)), "octal|cut off|checksum"),
}


@pytest.mark.parametrize(("blob", "reason"), CORRUPT.values(), ids=CORRUPT)
def test_a_blob_that_its_author_made_corrupt_is_refused(blob: bytes, reason: str, tmp_path: Path) -> None:
    """When the blob is what it should be, the layer is to blame."""
    with pytest.raises(InvalidLayer, match=reason):
        build_blob(blob, tmp_path, diff_id=Digest.of(tar_bytes(ENTRIES)))


def test_zstd_data_that_their_author_cut_off_are_not_the_diff_id_s(tmp_path: Path) -> None:
    """The zstd library does not tell; the DiffID does."""
    tar = tar_bytes(ENTRIES)
    blob = COMPRESSIONS["zstd"](tar)[:-3000]

    with pytest.raises(DigestMismatch, match="uncompressed layer"):
        build_blob(blob, tmp_path, diff_id=Digest.of(tar))


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_a_compression_bomb_is_cut_at_the_limit_in_bounded_memory(name: str, tmp_path: Path) -> None:
    """A thousand to one and more: what comes out is bounded at each step."""
    content = bytes(256 << 20)
    blob = COMPRESSIONS[name](header(b"bomb", typeflag=b"0", size=1) + padded(b"x") + END + content)
    tracemalloc.start()

    with pytest.raises(LayerLimitExceeded, match="uncompressed bytes"):
        build_blob(blob, tmp_path, diff_id=Digest.of(b""), limits=limits(max_layer_bytes=100 << 20))

    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 8 << 20


def test_a_zstd_frame_that_wants_too_much_memory_is_refused(tmp_path: Path) -> None:
    """The window a frame declares is what its reader must remember."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    tar = tar_bytes(ENTRIES)
    blob = compressor.compress(tar) + compressor.flush()

    with pytest.raises(InvalidLayer, match="memory"):
        build_blob(blob, tmp_path, diff_id=Digest.of(tar))


def test_an_empty_blob_is_an_empty_layer(tmp_path: Path) -> None:
    """Some builders push a layer of no bytes at all."""
    record = build(b"", tmp_path)

    assert shape(tmp_path) == {}
    assert (record.entries, record.tar_bytes) == (0, 0)


@pytest.mark.parametrize("end", [b"", bytes(BLOCK), END, END + bytes(8192)])
def test_an_archive_may_lack_its_end_mark_or_have_more_than_that(end: bytes, tmp_path: Path) -> None:
    """The DiffID says what the tar is; where the entries end is clear."""
    build(member_bytes(File("f", b"x")) + end, tmp_path)

    assert shape(tmp_path) == {"f": b"x"}


@pytest.mark.parametrize("after", [0, 1, 3])
def test_what_the_progress_callback_raises_goes_through(after: int, tmp_path: Path) -> None:
    """A pull is cancelled from its progress."""
    blob = gzip.compress(tar_bytes(ENTRIES))
    calls = 0

    class CancelledError(Exception):
        pass

    def cancel(_count: int) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise CancelledError

    with pytest.raises(CancelledError):
        build_blob(blob, tmp_path, diff_id=Digest.of(b""), chunks=chunked(blob, len(blob) // 5), on_progress=cancel)
    assert open_below(tmp_path) == []


def test_what_the_source_raises_goes_through(tmp_path: Path) -> None:
    """A registry that went away is no fault of the layer."""
    blob = gzip.compress(tar_bytes(ENTRIES))

    def broken() -> Iterator[bytes]:
        yield blob[:1000]
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    with pytest.raises(ConnectionResetError):
        build_blob(blob, tmp_path, diff_id=Digest.of(b""), chunks=broken())


def test_no_descriptor_is_left_open_after_success_or_refusal(tmp_path: Path) -> None:
    """A worker lives long."""
    tar = tar_bytes([*(Dir(f"d{n}") for n in range(100)), File("d1/f"), Hardlink("l", "d1/f")])

    for number, archive in enumerate((tar, tar[:-1024] + named(b".."))):
        staging_dir = tmp_path / str(number)
        staging_dir.mkdir()
        try:
            build(archive, staging_dir)
        except InvalidLayer:
            assert number == 1

    assert open_below(tmp_path) == []


@pytest.mark.root
def test_a_full_disk_is_transient(tmp_path: Path) -> None:
    """No space is nobody's fault for good."""
    from worker.linux import libc  # noqa: PLC0415 - for this one mount

    libc.call("mount", b"tmpfs", os.fsencode(tmp_path), b"tmpfs", 0, b"size=1m")
    try:
        with pytest.raises(StorageExhausted, match="No space"):
            build([File("big", bytes(4 << 20))], tmp_path)
    finally:
        libc.call("umount2", os.fsencode(tmp_path), 0)


def test_every_refusal_is_an_error_that_crosses_json(tmp_path: Path) -> None:
    """Names from archives are bytes; messages are text that any JSON can carry."""
    with pytest.raises(ProvisionerError) as raised:
        build(pax_named(b"caf\xe9/\xff/../x"), tmp_path)

    assert str(raised.value).encode("utf-8")
    assert "caf" in str(raised.value)
    assert "xe9" in str(raised.value)


@pytest.mark.parametrize("layer_format", [LayerFormat.DIRECTORY, LayerFormat.DIRECTORY_AUFS])
def test_the_record_says_what_the_layer_hides(layer_format: LayerFormat, tmp_path: Path) -> None:
    """A store must know whether a layer has whiteouts, and whether anything below it counts."""
    archives = {
        "nothing": ([File("a")], False, False),
        "one name": ([Whiteout("a")], True, False),
        "a directory": ([Opaque("d")], True, False),
        "everything": ([Opaque(), File("a")], True, True),
        "only its own": ([Whiteout("a"), File("a")], None, False),
    }
    for name, (entries, has_whiteouts, is_opaque) in archives.items():
        staging_dir = tmp_path / name
        staging_dir.mkdir()

        record = build(entries, staging_dir, layer_format=layer_format)

        assert record.is_opaque is is_opaque, name
        assert has_whiteouts in (None, record.has_whiteouts), name
        assert record.layer_format is layer_format


def test_the_tree_of_a_squashed_layer_belongs_to_whoever_runs(tmp_path: Path) -> None:
    """Without root there are no owners, no devices and no setuid or setgid bits, and nothing is unreadable."""
    record = build(
        [
            Dir("locked", mode=0o000, uid=1000),
            File("locked/secret", b"s", mode=0o000, uid=70_000),
            CharDevice("null", 1, 3),
            File("suid", mode=0o4711),
            Dir("sgid", mode=0o2755),
            Dir("sticky", mode=0o1777),
        ],
        tmp_path,
        is_squashed=True,
    )

    nodes = snapshot(tmp_path)
    assert record.is_squashed
    assert "null" not in nodes
    assert nodes["locked"].mode == 0o700
    assert nodes["locked/secret"].mode == 0o400
    assert nodes["suid"].mode == 0o711
    assert nodes["sgid"].mode == 0o755
    assert nodes["sticky"].mode == 0o1777
    assert {node.owner for node in nodes.values()} == {(os.geteuid(), os.getegid())}
