# SPDX-License-Identifier: Apache-2.0
"""What the kernel shows of an image is what its layers say."""

import os
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.support.erofs import LIMITS, build_layers, make_image, mounted, shown, stacked
from tests.support.tar import (
    BlockDevice,
    CharDevice,
    Dir,
    Entry,
    Fifo,
    File,
    Hardlink,
    Opaque,
    Sparse,
    Symlink,
    Whiteout,
)
from tests.support.trees import tree_snapshot
from worker.errors import BackendUnsupported
from worker.layers.erofs.format import MAX_DEVICES, Device
from worker.layers.erofs.image import encode_image
from worker.layers.erofs.index import dump_index
from worker.layers.erofs.inode import TAR_DEVICE, encode_file
from worker.layers.erofs.tree import Directory
from worker.layers.refusal import Refusal
from worker.layers.tar_entry import NO_XATTRS, EntryType, TarEntry
from worker.store.merged import merge_image

pytestmark = pytest.mark.root

CAPABILITY = b"\x01\x00\x00\x02\x00\x20" + bytes(14)
CAPABILITY_OF_A_NAMESPACE = b"\x01\x00\x00\x03\x00\x20" + bytes(18)
NOBODY = 2**32 - 1
LIST = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in [(0x01, 7, NOBODY), (0x02, 4, 1000), (0x04, 5, NOBODY), (0x10, 7, NOBODY), (0x20, 0, NOBODY)]
)
EVERYTHING = [
    Dir(".", mode=0o711, uid=7, gid=8, mtime_ns=3),
    Dir("tmp", mode=0o1777, xattrs={"user.d": b"1", "system.posix_acl_default": LIST, "trusted.t": b"\0"}),
    File("tmp/su", b"binary" * 1000, mode=0o4755, xattrs={"security.capability": CAPABILITY}),
    File("tmp/acl", b"x", mode=0o640, xattrs={"system.posix_acl_access": LIST}),
    File("tmp/many", xattrs={f"user.{n}" + "n" * 200: os.urandom(n) for n in range(12)}),
    File("contained", xattrs={"security.capability": CAPABILITY_OF_A_NAMESPACE}),
    File("empty", mode=0o000, uid=2**31 + 5, gid=2**32 - 2),
    File("before-1970", b"x", mtime_ns=-1_500_000_000),
    File("names", b"one inode"),
    Hardlink("also", "names"),
    Hardlink("d/e/e/p/too", "also"),
    Symlink("link", "tmp", uid=3),
    Hardlink("same-link", "link"),
    Symlink("long", "x" * 4095),
    Fifo("pipe", mode=0o622),
    CharDevice("null", 1, 3, mode=0o666),
    BlockDevice("disk", 4095, 0xFFFFF),
    File("odd \\name\n\t#:,=", b"odd"),
    File("n" * 255, b"long name"),
]


def test_shows_everything_an_entry_says(erofs_dir: Path) -> None:
    """The same as the tree unpacked: modes, owners, nanoseconds, attributes, links, devices."""
    with shown([EVERYTHING], erofs_dir) as tree, stacked([EVERYTHING], erofs_dir) as rootfs:
        assert tree_snapshot(tree) == tree_snapshot(rootfs)
        assert (tree / "null").stat().st_rdev == os.makedev(1, 3)
        assert (tree / "disk").stat().st_rdev == os.makedev(4095, 0xFFFFF)
        assert os.getxattr(tree / "tmp/acl", "system.posix_acl_access") != LIST  # chmod changed it
        assert (tree / "names").stat().st_nlink == 3


def test_counts_the_links_of_directories(erofs_dir: Path) -> None:
    """find(1) leaves directories with two links alone."""
    with shown([[Dir("a/b"), Dir("a/c"), File("a/f")]], erofs_dir) as tree:
        assert [(tree / path).stat().st_nlink for path in (".", "a", "a/b")] == [3, 4, 2]


@pytest.mark.parametrize("size", [1, 511, 512, 513, 4096, 4097, 1 << 20, (1 << 20) + 1])
def test_files_of_any_size_come_out_whole(size: int, erofs_dir: Path) -> None:
    """Whatever follows them in the tar stays out."""
    content = os.urandom(size)

    with shown([[File("before", b"x" * 700), File("f", content), File("after", b"y" * 700)]], erofs_dir) as tree:
        assert (tree / "f").read_bytes() == content
        with (tree / "f").open("rb") as file:
            file.seek(max(0, size - 3))
            assert file.read() == content[-3:]


@pytest.mark.parametrize("gibibytes", [6, 2047], ids=["beyond 32 bits", "of several chunks"])
def test_a_large_file_is_read_at_every_end(gibibytes: int, erofs_dir: Path) -> None:
    """Of which the disk holds a few pages; beyond 1 TiB a file has several chunks."""
    size = gibibytes << 30
    places = [0, 1 << 32, 1 << 40, size - 3]
    (layer_dir,) = build_layers([[]], erofs_dir)
    with (layer_dir / "layer.tar").open("r+b") as file:
        for place in places:
            file.seek(512 + place)
            file.write(b"%03d" % places.index(place))
        file.truncate(512 + size)
    (layer_dir / "layer.idx").write_bytes(_index_of_one_file(size))

    image = merge_image(erofs_dir / "merged.erofs", [layer_dir], limits=LIMITS)
    with mounted(image, erofs_dir / "mount") as tree, (tree / "f").open("rb") as file:
        assert os.fstat(file.fileno()).st_size == size
        for place in places:
            if place < size:
                assert os.pread(file.fileno(), 3, place) == b"%03d" % places.index(place)


@pytest.mark.parametrize("count", [0, 1, 12, 13, 14, 40, 5000])
def test_directories_of_any_size_list_all_and_find_each(count: int, erofs_dir: Path) -> None:
    """From none over what fits beside the inode to many blocks; names around `.` and `..` in the order."""
    names = sorted({"!", "-", ".-", "...", "..a"} | {f"{n:04d}" + "x" * (n % 200) for n in range(count)})
    entries = [File(f"d/{name}", name.encode()) for name in names]

    with shown([[Dir("d"), *entries]], erofs_dir) as tree:
        assert sorted(os.listdir(tree / "d")) == names  # noqa: PTH208 - names alone
        assert all((tree / "d" / name).read_bytes() == name.encode() for name in names)
        assert not (tree / "d/absent").exists()
        assert (tree / "d/..").samefile(tree)


def test_the_root_may_be_as_large_as_any_directory(erofs_dir: Path) -> None:
    """Its number has 16 bits, which 2 MiB of names before it would exceed."""
    names = [f"{n:05d}" + "x" * 240 for n in range(9_000)]

    with shown([[File(name) for name in names]], erofs_dir) as tree:
        assert sorted(os.listdir(tree)) == names  # noqa: PTH208 - names alone
        assert (tree / names[-1]).stat().st_size == 0


@pytest.mark.parametrize("length", [1, 59, 447, 448, 479, 480, 481, 511, 512, 4000, 4095])
def test_links_of_any_length_lead_where_they_say(length: int, erofs_dir: Path) -> None:
    """Also behind attributes, at every distance from the end of a block."""
    entries = [Symlink(f"l{n}", "y" * length, xattrs={"trusted.x": b"v" * (4 * n)} if n % 2 else {}) for n in range(16)]

    with shown([entries], erofs_dir) as tree:
        assert {os.readlink(tree / entry.path) for entry in entries} == {"y" * length}  # noqa: PTH115 - as written


def test_shows_500_layers(erofs_dir: Path) -> None:
    """One mount; the last one wins, and each has its own files."""
    layers = [[File("last", b"%d" % n), File(f"d/{n}", b"%d" % n)] for n in range(500)]

    with shown(layers, erofs_dir) as tree:
        assert (tree / "last").read_bytes() == b"499"
        assert {int((tree / "d" / str(n)).read_bytes()) for n in range(500)} == set(range(500))


def test_an_image_of_nothing_is_an_empty_root(erofs_dir: Path) -> None:
    """A layer without entries is one."""
    with shown([[]], erofs_dir) as tree:
        assert list(tree.iterdir()) == []


def test_takes_paths_longer_than_the_kernel_s_options(erofs_dir: Path) -> None:
    """The interface takes 255 bytes; longer ones go by descriptor."""
    deep = erofs_dir.joinpath(*["x" * 200] * 5)

    with shown([[File("f", b"here")], [File("g", b"there")]], deep) as tree:
        assert ((tree / "f").read_bytes(), (tree / "g").read_bytes()) == (b"here", b"there")


def test_sparse_files_are_whole_with_their_holes(erofs_dir: Path) -> None:
    """They lie in a file of their own, after one another, beside the tar's."""
    content = bytearray(300_000)
    content[100_000:100_004] = b"data"
    sparse = [Sparse(name, 300_000, {100_000: b"data", 300_000: b""}) for name in ("one", "two")]
    layer = [*sparse, Sparse("empty", 0, {}), File("plain", b"plain")]
    image = make_image([[File("below", b"below")], layer, [File("above", b"above")]], erofs_dir)

    assert [path.name for path in image.device_paths] == ["layer.tar", "layer.tar", "layer.blob", "layer.tar"]
    assert image.device_paths[2].stat().st_blocks * 512 <= 16 << 10
    with mounted(image, erofs_dir / "mount") as tree:
        assert (tree / "one").read_bytes() == (tree / "two").read_bytes() == content
        assert (tree / "empty").read_bytes() == b""
        assert [(tree / name).read_text() for name in ("below", "plain", "above")] == ["below", "plain", "above"]


def test_the_same_layers_give_the_same_bytes(tmp_path: Path) -> None:
    """Whoever merges them, wherever they lie."""
    layers = [EVERYTHING, [Whiteout("tmp/su"), File("new", b"1")]]

    first, second = (make_image(layers, tmp_path / name) for name in ("one", "two"))

    assert first.image_path.read_bytes() == second.image_path.read_bytes()


def test_too_many_devices_are_refused() -> None:
    """The root would get a number the superblock cannot hold."""
    devices = [Device(tag=b"", size_bytes=512)] * (MAX_DEVICES + 1)

    with pytest.raises(BackendUnsupported, match="too many"):
        encode_image(Directory(), devices)


PATHS = st.sampled_from(["a", "b", "c", "a/a", "a/b", "b/a", "a/b/c", "c/a/b", "a-", "a.b"])
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from([0o644, 0o4755, 0o000, 0o1777]),
        "uid": st.sampled_from([1, 70_000, 2**32 - 2]),
        "mtime_ns": st.integers(-(2**31 - 1) * 10**9, 2**33 * 10**9),
        "xattrs": st.dictionaries(
            st.sampled_from(["user.a", "user.b" * 20, "trusted.c", "security.d"]), st.binary(max_size=100), max_size=3
        ),
    },
)
ENTRIES = st.one_of(
    st.builds(lambda path, content, more: File(path, content, **more), PATHS, st.binary(max_size=2000), ATTRIBUTES),
    st.builds(lambda path, more: Dir(path, **more), PATHS | st.just("."), ATTRIBUTES),
    st.builds(Symlink, PATHS, st.sampled_from(["a", "/etc", "../b", "z" * 300])),
    st.builds(lambda path, more: Fifo(path, **more), PATHS, ATTRIBUTES),
    st.builds(lambda path: CharDevice(path, 1, 3), PATHS),
    st.builds(Whiteout, PATHS),
    st.builds(Opaque, PATHS),
)


@st.composite
def layers_with_links(draw: st.DrawFn) -> list[list[Entry]]:
    """Draw layers, with hard links to what may still be there."""
    layers = draw(st.lists(st.lists(ENTRIES, max_size=10), min_size=1, max_size=4))
    for layer in layers:
        files = [entry.path for entry in layer if entry.typeflag in b"0236" and ".wh" not in entry.path]
        for target in files[: draw(st.integers(0, 3))]:
            layer.append(Hardlink(draw(PATHS), target))
        if files and draw(st.booleans()):
            layer.append(draw(ENTRIES))
    return layers


@given(layers=layers_with_links())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_image_looks_as_its_layers_unpacked_and_stacked(layers: list[list[Entry]], erofs_dir: Path) -> None:
    """Two builders, two ways of merging, one tree; or both refuse a layer, for the same reason."""
    with TemporaryDirectory(dir=erofs_dir) as directory:
        as_image = outcome(shown, layers, Path(directory))
        as_stack = outcome(stacked, layers, Path(directory))

    assert as_image == as_stack


def outcome(
    show: Callable[[list[list[Entry]], Path], AbstractContextManager[Path]], layers: list[list[Entry]], directory: Path
) -> object:
    """Return the tree that is shown, or why there is none."""
    try:
        with show(layers, directory) as tree:
            return tree_snapshot(tree)
    except Refusal as refusal:
        event(refusal.reason)
        return refusal.reason


def _index_of_one_file(size: int) -> bytes:
    """Return the index of a layer whose one file begins on the tar's second block."""
    entry = TarEntry(
        name=b"f",
        type=EntryType.REGULAR,
        mode=0o644,
        uid=0,
        gid=0,
        mtime_ns=0,
        size_bytes=size,
        linkname=b"",
        device=(0, 0),
        xattrs=NO_XATTRS,
        data_offset=512,
        data_bytes=size,
        extents=None,
    )
    root = Directory()
    root.children[b"f"] = encode_file(entry, device=TAR_DEVICE, offset=512)
    return b"".join(dump_index(root, device_count=1))
