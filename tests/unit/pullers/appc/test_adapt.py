# SPDX-License-Identifier: Apache-2.0
"""The tar of a layer has what the archive has below rootfs/, and nothing else."""

import random
from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.support.acis import appc_manifest, below_rootfs
from tests.support.tar import CharDevice, Dir, Entry, Fifo, File, Hardlink, Symlink, tar_bytes
from worker.layers.limits import LayerLimits
from worker.layers.stream import ByteStream
from worker.layers.tar_reader import TarReader
from worker.pullers.appc.adapt import Adapter, batched
from worker.settings import MIB

LIMITS = LayerLimits(max_layer_bytes=1 << 30, max_entries=1000, max_header_bytes=MIB)
MANIFEST = b'{"any": "bytes"}'
NAMES = st.lists(
    st.text("ab.~é ", min_size=1, max_size=60).filter(lambda part: part.strip(".")), min_size=1, max_size=4
)
PATHS = NAMES.map("/".join)


@st.composite
def trees(draw: st.DrawFn) -> list[Entry]:
    """Entries of every type, below rootfs/ once they are in an archive."""
    entries = []
    for path in draw(st.lists(PATHS, max_size=6)):
        other = draw(PATHS)
        makers = [
            lambda path=path: File(path, b"x" * len(path) * 20, xattrs={"user.a": b"\xff\0="}),
            lambda path=path: Dir(path, mode=0o1777),
            lambda path=path, other=other: Symlink(path, f"/{other}"),
            lambda path=path, other=other: Hardlink(path, other),
            lambda path=path: CharDevice(path, 5, 1, uid=2**31),
            lambda path=path: Fifo(path, mtime_ns=123_456_789_012_345_678),
        ]
        entries.append(draw(st.sampled_from(makers))())
    return entries


def adapted(tar: bytes) -> tuple[bytes, bytes]:
    """Return the layer's tar and the manifest."""
    adapter = Adapter(LIMITS, max_manifest_bytes=1000)
    chunks = (tar[start : start + 1000] for start in range(0, len(tar), 1000))
    return b"".join(adapter.adapt(chunks)), adapter.manifest


def read(tar: bytes) -> Iterator[tuple[object, ...]]:
    """Yield all there is to know of a tar's entries."""
    reader = TarReader(ByteStream(iter([tar])), LIMITS)
    for entry in reader:
        data = b"".join(reader.data())
        name, linkname = (text.strip(b"/") for text in (entry.name, entry.linkname))
        facts = (entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.device, dict(entry.xattrs))
        yield name, linkname if entry.type.value == "hard link" else entry.linkname, entry.type, *facts, data


@given(trees(), st.randoms(use_true_random=False))
def test_what_is_below_rootfs_becomes_the_layer(entries: Sequence[Entry], order: random.Random) -> None:
    """Every entry with all its attributes, wherever manifest and rootfs stand between them."""
    archive = [below_rootfs(entry) for entry in entries]
    for part in (File("./manifest", MANIFEST), Dir("./rootfs")):
        archive.insert(order.randint(0, len(archive)), part)

    layer, manifest = adapted(tar_bytes([Dir("."), *archive]))

    assert manifest == MANIFEST
    found = list(read(layer))
    assert [facts for facts in found if facts[0] != b"."] == list(read(tar_bytes(entries)))
    assert len([facts for facts in found if facts[0] == b"."]) == 1


def test_the_layer_does_not_depend_on_how_the_archive_was_written() -> None:
    """A leading `./` or two slashes make no other layer, nor does a repeated slash."""
    first, _ = adapted(tar_bytes([File("manifest"), Dir("rootfs"), Dir("rootfs/a"), File("rootfs/a/b", b"b")]))
    second, _ = adapted(
        tar_bytes([Dir("./rootfs"), Dir("./rootfs//a"), File("rootfs/./a/b", b"b"), File("./manifest")])
    )

    assert first == second


def test_pieces_are_joined() -> None:
    """Small ones to about a mebibyte; all of them arrive."""
    chunks = list(batched([b"x" * 1000] * 3000))

    assert sum(map(len, chunks)) == 3_000_000
    assert all(MIB <= len(chunk) < MIB + 1000 for chunk in chunks[:-1])
    assert list(batched([])) == []


def test_the_manifest_is_taken_as_it_is() -> None:
    """Byte for byte; whether it is one is judged elsewhere."""
    content = repr(appc_manifest("a")).encode()

    assert adapted(tar_bytes([File("manifest", content), Dir("rootfs")]))[1] == content
