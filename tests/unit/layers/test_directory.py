# SPDX-License-Identifier: Apache-2.0
"""What a layer hides and what it shows, in whatever order its archive says so."""

import io
import tarfile
import tempfile
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tar import Dir, Entry, Fifo, File, Hardlink, Opaque, Symlink, Whiteout
from tests.unit.layers.harness import OPAQUE_XATTR, ORIGIN_XATTR, shape, snapshot, unpack
from worker.image import LayerFormat

WHITEOUT = "whiteout"
OPAQUE = "opaque directory"

SEMANTICS: dict[str, tuple[list[Entry], dict[str, object]]] = {
    "a whiteout hides a name": ([Dir("d"), Whiteout("d/x")], {"d": "directory", "d/x": WHITEOUT}),
    "a whiteout needs no directory entry": ([Whiteout("d/x")], {"d": "directory", "d/x": WHITEOUT}),
    "a whiteout keeps the file of its own layer": ([Whiteout("x"), File("x", b"1")], {"x": b"1"}),
    "a whiteout keeps the link of its own layer": ([Whiteout("x"), Symlink("x", "y")], {"x": "y"}),
    "a whiteout makes the directory of its own layer opaque": (
        [Whiteout("d"), Dir("d"), File("d/x", b"1")],
        {"d": OPAQUE, "d/x": b"1"},
    ),
    "a whiteout makes an unlisted directory opaque": ([Whiteout("d"), File("d/x", b"1")], {"d": OPAQUE, "d/x": b"1"}),
    "an opaque mark hides all that is below": ([Dir("d"), Opaque("d")], {"d": OPAQUE}),
    "an opaque mark keeps what its own layer has": (
        [Opaque("d"), File("d/x", b"1"), File("d/e/y", b"2")],
        {"d": OPAQUE, "d/x": b"1", "d/e": "directory", "d/e/y": b"2"},
    ),
    "whiteouts in an opaque directory are superfluous": (
        [Opaque("d"), Whiteout("d/x"), File("d/y", b"2")],
        {"d": OPAQUE, "d/y": b"2"},
    ),
    "whiteouts below an opaque directory are superfluous": (
        [Opaque("d"), Whiteout("d/e/x"), File("d/y", b"2")],
        {"d": OPAQUE, "d/y": b"2"},
    ),
    "a hidden directory needs no whiteouts inside": ([Whiteout("d"), Whiteout("d/x")], {"d": WHITEOUT}),
    "a hidden directory needs no whiteouts deep inside": (
        [Whiteout("d"), Whiteout("d/e/f/x"), Opaque("d/e")],
        {"d": WHITEOUT},
    ),
    "a hidden directory stays if it is listed": (
        [Whiteout("d"), Whiteout("d/x"), Dir("d")],
        {"d": OPAQUE},
    ),
    "a file hides a directory with all whiteouts in it": ([File("d", b"1"), Whiteout("d/x")], {"d": b"1"}),
    "a link hides a directory and takes no mark": ([Symlink("d", "/etc"), Opaque("d")], {"d": "/etc"}),
    "a mark on the root": ([Opaque(), File("x", b"1")], {"x": b"1"}),
    "bookkeeping of aufs is left out": (
        [File(".wh..wh.aufs"), Dir(".wh..wh.plnk"), File(".wh..wh.plnk/1.2", b"1"), File("x", b"1")],
        {"x": b"1"},
    ),
}


def layer_shape(staging_dir: Path) -> dict[str, object]:
    """Return the tree's shape with opaque directories told from others."""
    nodes = snapshot(staging_dir)
    return {
        path: OPAQUE if OPAQUE_XATTR in nodes[path].xattrs else content for path, content in shape(staging_dir).items()
    }


def orders(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Yield the entries in every order, and each of those again after another directory's entries."""
    for order in permutations(entries):
        yield list(order)


@pytest.mark.parametrize(("entries", "expected"), SEMANTICS.values(), ids=SEMANTICS)
def test_whiteouts_have_the_same_effect_in_every_order(
    entries: list[Entry], expected: dict[str, object], tmp_path: Path
) -> None:
    """They apply to the layers below, wherever in the archive they stand."""
    for number, order in enumerate(orders(entries)):
        staging_dir = tmp_path / str(number)
        staging_dir.mkdir()

        unpack(order, staging_dir)

        assert layer_shape(staging_dir) == expected, [entry.path for entry in order]


@pytest.mark.parametrize(("entries", "expected"), SEMANTICS.values(), ids=SEMANTICS)
def test_whiteouts_have_the_same_effect_in_the_form_of_aufs(
    entries: list[Entry], expected: dict[str, object], tmp_path: Path
) -> None:
    """The same tree with `.wh.` files for devices and attributes."""
    translated: dict[str, object] = {}
    for path, content in expected.items():
        parent, _, name = path.rpartition("/")
        if content == WHITEOUT:
            translated[f"{parent}/.wh.{name}" if parent else f".wh.{name}"] = b""
        elif content == OPAQUE:
            translated |= {path: "directory", f"{path}/.wh..wh..opq": b""}
        else:
            translated[path] = content
    if any(entry.path == ".wh..wh..opq" for entry in entries):
        translated[".wh..wh..opq"] = b""

    for number, order in enumerate(orders(entries)):
        staging_dir = tmp_path / str(number)
        staging_dir.mkdir()

        unpack(order, staging_dir, layer_format=LayerFormat.DIRECTORY_AUFS)

        assert shape(staging_dir) == translated, [entry.path for entry in order]


def test_a_directory_with_whiteouts_is_marked_so_that_overlayfs_filters_them(tmp_path: Path) -> None:
    """Without the mark they show when nothing is below the directory."""
    unpack([Whiteout("a/x"), File("b/y")], tmp_path)

    nodes = snapshot(tmp_path)
    assert nodes["a"].xattrs == {ORIGIN_XATTR: b""}
    assert nodes["b"].xattrs == {}


LAST_WINS: dict[str, tuple[list[Entry], dict[str, object]]] = {
    "file over file": ([File("x", b"1"), File("x", b"2")], {"x": b"2"}),
    "link over file": ([File("x", b"1"), Symlink("x", "y")], {"x": "y"}),
    "file over link does not write through it": (
        [File("y", b"1"), Symlink("x", "y"), File("x", b"2")],
        {"y": b"1", "x": b"2"},
    ),
    "fifo over file": ([File("x", b"1"), Fifo("x")], {"x": "fifo"}),
    "file over directory": ([Dir("d"), File("d/e/f", b"1"), File("d", b"2")], {"d": b"2"}),
    "directory over file hides what the file had hidden": ([File("d", b"1"), Dir("d")], {"d": OPAQUE}),
    "directory over link": ([Symlink("d", "/etc"), Dir("d"), File("d/x", b"1")], {"d": OPAQUE, "d/x": b"1"}),
    "directory over directory keeps the children": (
        [Dir("d"), File("d/x", b"1"), Dir("d", mode=0o700)],
        {"d": "directory", "d/x": b"1"},
    ),
    "path through a file": ([File("d", b"1"), File("d/x", b"2")], {"d": OPAQUE, "d/x": b"2"}),
    "path through a link to the host": (
        [Symlink("d", "/etc"), File("d/cron.d/evil", b"x")],
        {"d": OPAQUE, "d/cron.d": "directory", "d/cron.d/evil": b"x"},
    ),
    "path through a relative link": (
        [Dir("real"), Symlink("d", "real"), File("d/x", b"1")],
        {"real": "directory", "d": OPAQUE, "d/x": b"1"},
    ),
    "path through a climbing link": (
        [Symlink("d", "../../../.."), File("d/x", b"1")],
        {"d": OPAQUE, "d/x": b"1"},
    ),
    "path through a loop of links": (
        [Symlink("a", "b"), Symlink("b", "a"), File("a/x", b"1")],
        {"a": OPAQUE, "a/x": b"1", "b": "a"},
    ),
    "path through a chain of links": (
        [Symlink("a", "b"), Symlink("b", "/"), File("a/b/x", b"1")],
        {"a": OPAQUE, "a/b": "directory", "a/b/x": b"1", "b": "/"},
    ),
    "a directory swapped for a link between its files": (
        [Dir("d"), File("d/x", b"1"), Symlink("d", "/etc"), File("d/y", b"2")],
        {"d": OPAQUE, "d/y": b"2"},
    ),
    "hard link over its own file": (
        [File("a", b"1"), File("b", b"2"), Hardlink("b", "a")],
        {"a": b"1", "b": b"1"},
    ),
    "hard link twice": ([File("a", b"1"), Hardlink("b", "a"), Hardlink("b", "a")], {"a": b"1", "b": b"1"}),
    "hard link target replaced later": (
        [File("a", b"1"), Hardlink("b", "a"), File("a", b"2")],
        {"a": b"2", "b": b"1"},
    ),
    "absolute names are the layer's": ([File("/etc/x", b"1")], {"etc": "directory", "etc/x": b"1"}),
    "dots and slashes": (
        [Dir("./d/"), File(".//d/./x", b"1"), Hardlink("y", "./d//x")],
        {"d": "directory", "d/x": b"1", "y": b"1"},
    ),
    "an absolute link keeps its target": ([Symlink("x", "/usr/bin/y")], {"x": "/usr/bin/y"}),
    "backslashes are only bytes": ([File("a\\..\\b", b"1")], {"a\\..\\b": b"1"}),
    "names that look like whiteouts": (
        [File(".whatever", b"1"), File("a.wh.b", b"2"), File(".wh", b"3")],
        {".whatever": b"1", "a.wh.b": b"2", ".wh": b"3"},
    ),
    "newlines and blanks": ([File(" a\nb ", b"1")], {" a\nb ": b"1"}),
    "no UTF-8": ([File("\udce9", b"1")], {"\udce9": b"1"}),
}


@pytest.mark.parametrize(("entries", "expected"), LAST_WINS.values(), ids=LAST_WINS)
def test_the_last_entry_of_a_name_wins_and_no_link_is_followed(
    entries: list[Entry], expected: dict[str, object], tmp_path: Path
) -> None:
    """Whatever is in the way of an entry or of its directories goes, and hides what is below as it did itself."""
    before = sorted(Path("/etc").iterdir())

    unpack(entries, tmp_path)

    assert layer_shape(tmp_path) == expected
    assert sorted(Path("/etc").iterdir()) == before


def test_unlisted_directories_are_recorded_and_listed_ones_are_not(tmp_path: Path) -> None:
    """Their attributes belong to the layers below; the same on every node."""
    record = unpack(
        [File("a/b/c"), Dir("a/b"), File("l/x"), File("l"), Whiteout("w/x"), Whiteout("v/y"), Whiteout("v")], tmp_path
    )

    nodes = snapshot(tmp_path)
    assert record.implied_dirs == (".", "a", "w")
    assert {nodes[path].mtime_ns for path in record.implied_dirs} == {0}
    assert {nodes[path].mode for path in record.implied_dirs} == {0o755}
    assert nodes["v"].kind == "whiteout"


def test_a_listed_root_is_not_implied_and_takes_attributes(tmp_path: Path) -> None:
    """`/`, `.` and `./` are the root."""
    record = unpack([File("x"), Dir(".", mode=0o711, mtime_ns=5)], tmp_path)

    root = snapshot(tmp_path)["."]
    assert record.implied_dirs == ()
    assert (root.mode, root.mtime_ns) == (0o711, 5)


def test_a_tree_deeper_than_any_stack_is_built_and_replaced(tmp_path: Path) -> None:
    """Neither descriptors nor recursion limit the depth."""
    deep = "/".join(["d"] * 1100)

    record = unpack([File(f"{deep}/x", b"1"), File(f"{deep}/y", b"2"), Hardlink("link", f"{deep}/x")], tmp_path)
    assert len(record.implied_dirs) == 1101
    assert (tmp_path / "tree/link").read_bytes() == b"1"

    (tmp_path / "again").mkdir()
    unpack([File(f"{deep}/x", b"1"), File("d", b"gone")], tmp_path / "again")
    assert shape(tmp_path / "again") == {"d": b"gone"}


def test_entries_that_hop_between_many_directories_leave_every_time_exact(tmp_path: Path) -> None:
    """More directories than are kept open, each entered again after it was finished."""
    names = [f"d{number}" for number in range(150)]
    entries = [Dir(name, mtime_ns=10**18 + number) for number, name in enumerate(names)]
    for round_ in "abc":
        entries += [File(f"{name}/{round_}", round_.encode()) for name in names]

    unpack(entries, tmp_path)

    nodes = snapshot(tmp_path)
    assert [nodes[name].mtime_ns for name in names] == [10**18 + number for number in range(150)]


# The model: a directory is a dict, a file bytes, a link a string.
NAMES = st.sampled_from(["a", "b", "c", "dd", "e" * 120, "ü"])
LEAVES = st.one_of(st.binary(max_size=600), st.text("xyz/.", min_size=1, max_size=150))
MODELS = st.recursive(LEAVES, lambda children: st.dictionaries(NAMES, children, max_size=4), max_leaves=20)
LAYERS = st.dictionaries(NAMES, MODELS, max_size=4)
FORMATS = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])


def flattened(model: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield paths and contents, parents first."""
    for name, content in model.items():
        yield prefix + name, content
        if isinstance(content, dict):
            yield from flattened(content, f"{prefix}{name}/")


def tar_of(items: list[tuple[str, object]], tar_format: int) -> bytes:
    """Write an archive with Python's tarfile."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for path, content in items:
            member = tarfile.TarInfo(path)
            if isinstance(content, dict):
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size = len(content)  # type: ignore[arg-type]
            archive.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


@settings(max_examples=60, deadline=None)
@given(model=LAYERS, tar_format=FORMATS, data=st.data())
def test_a_layer_lists_as_its_model_does(model: dict[str, object], tar_format: int, data: st.DataObject) -> None:
    """Whatever is packed, in any order that lists what is there, comes out."""
    items = list(flattened(model))
    shuffled = data.draw(st.permutations(items))

    with tempfile.TemporaryDirectory() as directory:
        unpack(tar_of(shuffled, tar_format), Path(directory))
        listing = shape(Path(directory))

    assert listing == {path: "directory" if isinstance(content, dict) else content for path, content in items}


@settings(max_examples=60, deadline=None)
@given(
    lower=LAYERS,
    upper=LAYERS,
    hidden=st.lists(NAMES, max_size=3),
    hidden_deeper=st.lists(st.tuples(NAMES, NAMES), max_size=3),
    opaque=st.lists(NAMES, max_size=2),
    data=st.data(),
)
def test_a_layer_over_another_is_what_the_specification_says_in_any_order(
    *,
    lower: dict[str, object],
    upper: dict[str, object],
    hidden: list[str],
    hidden_deeper: list[tuple[str, str]],
    opaque: list[str],
    data: st.DataObject,
) -> None:
    """Removing what whiteouts name from the lower model and adding the upper one is what the trees stacked give."""
    whiteouts = [f".wh.{name}" for name in hidden] + [f"{parent}/.wh.{name}" for parent, name in hidden_deeper]
    marks = [f"{name}/.wh..wh..opq" for name in opaque]
    items: list[tuple[str, object]] = [*flattened(upper), *((name, b"") for name in {*whiteouts, *marks})]
    shuffled = data.draw(st.permutations(items))

    with tempfile.TemporaryDirectory() as directory:
        unpack(tar_of(shuffled, tarfile.PAX_FORMAT), Path(directory))
        stacked = stack_over(dict(flattened(lower)), Path(directory))

    expected = dict(flattened(lower))
    for name in hidden:
        drop(expected, name, keep_itself=False)
    for parent, name in hidden_deeper:
        drop(expected, f"{parent}/{name}", keep_itself=False)
    for name in opaque:
        drop(expected, name, keep_itself=True)
    for path, content in flattened(upper):
        put(expected, path, content)
    for name in (*opaque, *(parent for parent, _ in hidden_deeper)):
        # A directory that is only named by what is hidden in it exists, where it is not hidden itself.
        if name not in hidden and not isinstance(upper.get(name, {}), (bytes, str)):
            if not isinstance(expected.get(name, {}), dict):
                drop(expected, name, keep_itself=False)
            expected.setdefault(name, {})
    assert {path: is_dir_or(content) for path, content in stacked.items()} == {
        path: is_dir_or(content) for path, content in expected.items()
    }


def is_dir_or(content: object) -> object:
    """Return a model's content without children."""
    return "directory" if isinstance(content, dict) else content


def drop(stacked: dict[str, object], path: str, *, keep_itself: bool) -> None:
    """Remove what is below a path, and the path."""
    for other in list(stacked):
        if other.startswith(path + "/") or (other == path and not keep_itself):
            del stacked[other]


def put(stacked: dict[str, object], path: str, content: object) -> None:
    """Apply one entry of an upper layer."""
    if not (isinstance(content, dict) and isinstance(stacked.get(path), dict)):
        drop(stacked, path, keep_itself=False)
    stacked[path] = content


def stack_over(stacked: dict[str, object], staging_dir: Path) -> dict[str, object]:
    """Read a layer's tree as overlayfs does, over what is in `stacked`."""
    for path, content in sorted(layer_shape(staging_dir).items()):
        if content == WHITEOUT:
            drop(stacked, path, keep_itself=False)
        elif content in (OPAQUE, "directory") and (staging_dir / "tree" / path).is_dir():
            if content == OPAQUE or not isinstance(stacked.get(path), dict):
                drop(stacked, path, keep_itself=False)
            stacked[path] = {}
        else:
            put(stacked, path, content)
    return stacked
