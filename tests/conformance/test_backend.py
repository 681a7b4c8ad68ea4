# SPDX-License-Identifier: Apache-2.0
"""What a rootfs shows is exactly what its layers say, whichever backend shows it."""

import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.site import EVERYTHING, REASONS, Site, names
from tests.support.trees import (
    Directory,
    File,
    HardLink,
    Special,
    Symlink,
    Tree,
    Whiteout,
    make_tree,
    stack,
    tree_snapshot,
)
from worker.errors import BackendUnsupported
from worker.linux.remove import remove_tree

pytestmark = pytest.mark.root


@pytest.mark.parametrize("name", REASONS)
def test_backend_is_checked_here(name: str) -> None:
    """One skip, with the reason, stands for all the checks of a backend that does not work here."""
    if REASONS[name] is not None:
        pytest.skip(f"{name}: {REASONS[name]}")


def test_shows_a_layer_exactly(site: Site) -> None:
    """Modes, owners, nanoseconds, attributes, capabilities, links and devices are those of the layer."""
    rootfs = site.show([EVERYTHING])

    assert tree_snapshot(rootfs) == stack([EVERYTHING])


def test_shows_layers_upon_each_other_exactly(stacking: Site) -> None:
    """A second layer changes what it names and nothing else."""
    top: Tree = {
        ".": Directory(mode=0o755, mtime_ns=99),
        "bin/ping": Whiteout(),
        "home": Directory(mode=0o750, gid=100, mtime_ns=5),
        "home/user/secret": File(b"changed", mode=0o600, uid=1),
        "name": Symlink("elsewhere"),
        "d/e": Directory(is_opaque=True),
        "d/e/new": File(b"new"),
        "null": Special(kind=stat.S_IFIFO),
    }

    rootfs = stacking.show([EVERYTHING, top])

    assert tree_snapshot(rootfs) == stack([EVERYTHING, top])


def test_hides_what_a_whiteout_names(stacking: Site) -> None:
    """A file, a link and a whole directory disappear, from the listing too."""
    base: Tree = {"d/file": File(), "d/link": Symlink("file"), "d/dir/below": File(), "d/kept": File()}
    top: Tree = {"d/file": Whiteout(), "d/link": Whiteout(), "d/dir": Whiteout()}

    rootfs = stacking.show([base, top])

    assert names(rootfs / "d") == ["kept"]


def test_hides_nothing_with_a_whiteout_of_nothing(stacking: Site) -> None:
    """A whiteout of what is in no layer is not seen."""
    rootfs = stacking.show([{"d/kept": File()}, {"d/missing": Whiteout(), "other/missing": Whiteout()}])

    assert sorted(path for path in tree_snapshot(rootfs)) == [".", "d", "d/kept", "other"]


def test_hides_what_is_below_an_opaque_directory(stacking: Site) -> None:
    """An opaque directory shows only what its own layer and those above put into it."""
    base: Tree = {"d/old": File(), "d/sub/old": File()}
    middle: Tree = {"d": Directory(is_opaque=True, mode=0o700), "d/middle": File(), "d/sub/middle": File()}
    top: Tree = {"d/top": File(), "d/sub": Directory()}

    rootfs = stacking.show([base, middle, top])

    assert tree_snapshot(rootfs) == stack([base, middle, top])
    assert names(rootfs / "d") == ["middle", "sub", "top"]


def test_deleted_directory_comes_back_empty(stacking: Site) -> None:
    """A directory that one layer deletes and a later one makes again has nothing of the first."""
    trees: list[Tree] = [{"d/old": File()}, {"d": Whiteout()}, {"d/new": File()}]

    rootfs = stacking.show(trees)

    assert names(rootfs / "d") == ["new"]


def test_deleted_file_comes_back_new(stacking: Site) -> None:
    """A file that one layer deletes and a later one makes again is the later one."""
    rootfs = stacking.show([{"f": File(b"old", mode=0o600)}, {"f": Whiteout()}, {"f": File(b"new")}])

    assert (rootfs / "f").read_bytes() == b"new"


REPLACEMENTS: dict[str, Tree] = {
    "file": {"x": File(b"a file")},
    "directory": {"x/inside": File(b"in a directory")},
    "symlink": {"x": Symlink("target")},
    "symlink-to-directory": {"x": Symlink("target-dir")},
    "fifo": {"x": Special(kind=stat.S_IFIFO)},
    "hard-link": {"x": File(b"linked"), "y": HardLink("x")},
}


@pytest.mark.parametrize("lower", REPLACEMENTS)
@pytest.mark.parametrize("upper", REPLACEMENTS)
def test_replaces_an_entry_by_one_of_any_type(stacking: Site, lower: str, upper: str) -> None:
    """The later layer's entry stands alone, except that a directory upon a directory is both."""
    base: Tree = {"target": File(b"untouched"), "target-dir/kept": File(), **REPLACEMENTS[lower]}
    top = REPLACEMENTS[upper]

    rootfs = stacking.show([base, top])

    assert tree_snapshot(rootfs) == stack([base, top])


def test_never_writes_through_an_image_symlink(stacking: Site, tmp_path: Path) -> None:
    """A link to a place of the host, in the way of a later layer's files, is replaced and not followed."""
    host = tmp_path / "host"
    make_tree(host, {"file": File(b"the host's"), "dir/file": File(b"the host's")})
    before = tree_snapshot(host)
    base: Tree = {"f": Symlink(str(host / "file")), "d": Symlink(str(host / "dir")), "e": Symlink(str(host / "dir"))}
    top: Tree = {"f": File(b"image's"), "d/file": File(b"image's"), "e": Directory(is_opaque=True)}

    rootfs = stacking.show([base, top])

    assert tree_snapshot(host) == before
    assert tree_snapshot(rootfs) == stack([base, top])


def test_overwrites_as_the_ancestor_did(stacking: Site, tmp_path: Path) -> None:
    """Its test image: directories, files and links in each other's place, and a link to a file of the host."""
    host = tmp_path / "host"
    make_tree(host, {"file": File(b"the host's")})
    base: Tree = {
        "replaced1/m1": File(),
        "replaced2/m2": File(),
        "replaced3": File(b"a file"),
        "replaced4": Symlink("merged"),
        "merged/m1": File(b"lower"),
        "merged/m2": File(b"lower"),
        "foo": Symlink("dangling"),
        "bar": Symlink(str(host / "file")),
        "baz": File(b"a file"),
    }
    top: Tree = {
        "replaced1": File(b"a file"),
        "replaced2": Symlink("merged"),
        "replaced3/r3": File(),
        "replaced4/r4": File(),
        "merged/m2": File(b"upper"),
        "merged/m3": File(b"upper"),
        "foo": File(b"a file"),
        "bar": File(b"the image's"),
        "baz": Symlink("bar"),
    }

    rootfs = stacking.show([base, top])

    assert (host / "file").read_bytes() == b"the host's"
    assert (rootfs / "replaced1").read_bytes() == b"a file"
    assert (rootfs / "replaced2").readlink() == Path("merged")
    assert (names(rootfs / "replaced3"), names(rootfs / "replaced4")) == (["r3"], ["r4"])
    assert {path.name: path.read_bytes() for path in (rootfs / "merged").iterdir()} == {
        "m1": b"lower",
        "m2": b"upper",
        "m3": b"upper",
    }
    assert not (rootfs / "foo").is_symlink()
    assert not (rootfs / "bar").is_symlink()
    assert (rootfs / "baz").is_symlink()
    assert (rootfs / "baz").read_bytes() == b"the image's"
    assert tree_snapshot(rootfs) == stack([base, top])


def test_changes_of_mode_and_owner_alone_show(stacking: Site) -> None:
    """A layer that repeats a file with another mode and owner changes only those."""
    base: Tree = {"d/f": File(b"same"), "d/g": File()}
    top: Tree = {"d": Directory(mode=0o700, uid=9), "d/f": File(b"same", mode=0o4711, uid=1, gid=2)}

    rootfs = stacking.show([base, top])

    assert tree_snapshot(rootfs) == stack([base, top])


def test_hard_links_of_a_layer_survive_a_later_one(stacking: Site) -> None:
    """Replacing one name of a file leaves the others one file."""
    base: Tree = {"a": File(b"x"), "b": HardLink("a"), "d/c": HardLink("a")}

    rootfs = stacking.show([base, {"a": File(b"y")}])

    assert (rootfs / "b").samefile(rootfs / "d/c")
    assert (rootfs / "a").read_bytes() == b"y"


def test_whiteouts_of_the_base_layer_are_not_seen(site: Site) -> None:
    """A whiteout with nothing below is hidden, or refused by a backend that cannot hide it."""
    paths = site.home()
    layer = site.layer({"d/gone": Whiteout(), "gone": Whiteout(), "d/kept": File()})

    try:
        site.backend.provision([layer], paths, is_read_only=True)
    except BackendUnsupported:
        assert list(paths.rootfs_home.iterdir()) == []
    else:
        assert sorted(tree_snapshot(paths.rootfs_dir)) == [".", "d", "d/kept"]


@pytest.mark.parametrize("is_read_only", [False, True], ids=["writable", "read-only"])
def test_stacks_128_layers(stacking: Site, *, is_read_only: bool) -> None:
    """Each layer is seen, and the last one wins; or as many as the backend says."""
    count = min(128, stacking.backend.max_lower_dirs or 128)

    _check_many_layers(stacking, count, is_read_only=is_read_only)


def test_stacks_as_many_layers_as_it_says(stacking: Site) -> None:
    """The declared maximum is a promise; without one, 500 work."""
    _check_many_layers(stacking, stacking.backend.max_lower_dirs or 500, is_read_only=True)


def _check_many_layers(site: Site, count: int, *, is_read_only: bool) -> None:
    paths = site.home()
    trees: list[Tree] = [{"last": File(str(n).encode()), f"d/{n}": File(str(n).encode())} for n in range(count)]

    site.backend.provision(site.layers(trees), paths, is_read_only=is_read_only)

    assert (paths.rootfs_dir / "last").read_bytes() == str(count - 1).encode()
    assert len(names(paths.rootfs_dir / "d")) == count


LONG = "/".join(["x" * 200] * 5)
ODD = "odd :,\\ \tname"


@pytest.mark.parametrize("where", [LONG, ODD], ids=["long", "odd"])
def test_takes_any_path(site: Site, where: str) -> None:
    """Paths beyond what the kernel's options hold, and with what separates them, are no trouble."""
    paths = site.home(where)
    layer = site.layer({"f": File(b"here")}, name=where)

    site.backend.provision([layer], paths, is_read_only=not site.backend.is_writable)

    assert (paths.rootfs_dir / "f").read_bytes() == b"here"
    assert site.backend.destroy(paths)
    assert site.is_clean(paths)


def test_stacks_many_layers_with_long_paths(stacking_dirs: Site) -> None:
    """64 layers of paths longer than 64 characters were the ancestor's undoing (MESOS-6000)."""
    paths = stacking_dirs.home(LONG)
    layers = [stacking_dirs.layer({f"f{n}": File()}, name=f"{LONG}/{n}") for n in range(64)]

    stacking_dirs.backend.provision(layers, paths, is_read_only=False)

    assert len(names(paths.rootfs_dir)) == 64


def test_stacks_as_many_layers_as_it_says_with_long_paths(stacking_dirs: Site) -> None:
    """No path is too long and no page too small, and the rootfs can be written to."""
    paths = stacking_dirs.home(LONG)
    count = stacking_dirs.backend.max_lower_dirs or 500
    layers = [stacking_dirs.layer({"last": File(str(n).encode())}, name=f"{LONG}/{n}") for n in range(count)]

    stacking_dirs.backend.provision(layers, paths, is_read_only=False)

    assert (paths.rootfs_dir / "last").read_bytes() == str(count - 1).encode()
    assert stacking_dirs.backend.destroy(paths)
    assert stacking_dirs.is_clean(paths)


NAMES = st.sampled_from(["a", "b", "c", "a/a", "a/b", "b/a", "a/b/c", "c/a/b"])
ENTRIES = st.one_of(
    st.builds(File, st.binary(max_size=8), mode=st.sampled_from([0o644, 0o4755, 0o000]), uid=st.integers(0, 9)),
    st.builds(Directory, mode=st.sampled_from([0o755, 0o1777, 0o500]), is_opaque=st.booleans()),
    st.builds(Symlink, st.sampled_from(["a", "/etc", "../b"])),
    st.just(Whiteout()),
)
TREES = st.dictionaries(NAMES, ENTRIES, max_size=5).map(
    lambda tree: {
        path: entry
        for path, entry in tree.items()
        if not any(path.startswith(f"{other}/") and not isinstance(tree[other], Directory) for other in tree)
    }
)


@given(trees=st.lists(TREES, min_size=1, max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_stack_looks_like_the_model(stacking: Site, trees: list[Tree]) -> None:
    """Layers upon each other show what a few lines of dictionary arithmetic say."""
    paths = stacking.home()
    layers = stacking.layers(trees)
    try:
        stacking.backend.provision(layers, paths, is_read_only=True)

        assert tree_snapshot(paths.rootfs_dir) == stack(trees)
    finally:
        stacking.backend.destroy(paths)
        remove_tree(paths.rootfs_home)
