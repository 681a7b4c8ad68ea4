# SPDX-License-Identifier: Apache-2.0
"""What the mounting backends share."""

from pathlib import Path

import pytest

from tests.support.killing import count_lines, run_killed
from tests.support.trees import Directory, File, make_tree, tree_snapshot
from worker.backends.bind import BindBackend
from worker.backends.overlay import OverlayBackend
from worker.backends.stack import check_stack, make_upper_dir, take_down
from worker.errors import BackendUnsupported
from worker.image import LowerDir
from worker.paths import RootfsPaths


@pytest.fixture
def home(tmp_path: Path) -> RootfsPaths:
    """An empty home."""
    paths = RootfsPaths(tmp_path / "home")
    paths.rootfs_home.mkdir()
    return paths


def test_good_stack_passes(tmp_path: Path) -> None:
    """Up to the maximum."""
    check_stack(BindBackend(), [LowerDir(path=tmp_path)])
    check_stack(OverlayBackend(), [LowerDir(path=tmp_path / str(number)) for number in range(500)])


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "there is no layer to show"),
        ([str(number) for number in range(501)], "it stacks at most 500 layers, not 501"),
        (["a", "b", "a"], "a layer stands twice in the stack"),
    ],
    ids=["none", "many", "twice"],
)
def test_bad_stack_is_refused(tmp_path: Path, names: list[str], reason: str) -> None:
    """With the reason."""
    with pytest.raises(BackendUnsupported) as refusal:
        check_stack(OverlayBackend(), [LowerDir(path=tmp_path / name) for name in names])

    assert str(refusal.value) == f"backend overlay is not supported: {reason}"


@pytest.mark.root
def test_upper_directory_is_complete_or_absent(tmp_path: Path, home: RootfsPaths) -> None:
    """Whatever line was the last: without the attributes it would be taken for the container's own root for ever."""
    make_tree(tmp_path / "top", {".": Directory(mode=0o711, uid=5, xattrs={"user.note": b"x"})})
    expected = tree_snapshot(tmp_path / "top")["."]
    rehearsal = RootfsPaths(tmp_path / "rehearsal")
    rehearsal.rootfs_home.mkdir()
    lines = count_lines(lambda: make_upper_dir(rehearsal, topmost=tmp_path / "top"))

    for line in range(1, lines + 1):
        run_killed(lambda: make_upper_dir(home, topmost=tmp_path / "top"), at_line=line)
        if home.upper_dir.exists():
            assert tree_snapshot(home.upper_dir)["."] == expected
            home.upper_dir.rmdir()
    make_upper_dir(home, topmost=tmp_path / "top")

    assert tree_snapshot(home.upper_dir)["."] == expected
    assert [path.name for path in home.rootfs_home.iterdir()] == ["upper"]


@pytest.mark.root
def test_upper_directory_with_content_stays(tmp_path: Path, home: RootfsPaths) -> None:
    """It is the container's."""
    make_tree(home.upper_dir, {".": Directory(mode=0o700), "written": File(b"x")})
    before = tree_snapshot(home.upper_dir)
    make_tree(tmp_path / "top", {"f": File()})

    make_upper_dir(home, topmost=tmp_path / "top")

    assert tree_snapshot(home.upper_dir) == before


def test_taking_down_moves_files_out_of_the_way(home: RootfsPaths) -> None:
    """A rootfs of its own files goes at once, however large; each one to a name of its own."""
    for content in ("first", "second"):
        home.rootfs_dir.mkdir()
        (home.rootfs_dir / "file").write_text(content)
        assert take_down(home)
        assert not home.rootfs_dir.exists()

    left = sorted(home.rootfs_home.iterdir())
    assert len(left) == 2
    assert all(path.name.startswith("rootfs.gone-") for path in left)


def test_taking_down_nothing_is_no_error(home: RootfsPaths) -> None:
    """An empty mount point is a rootfs that was; nothing is none."""
    home.rootfs_dir.mkdir()

    assert [take_down(home), take_down(home), take_down(RootfsPaths(home.rootfs_home / "missing"))] == [
        True,
        False,
        False,
    ]
