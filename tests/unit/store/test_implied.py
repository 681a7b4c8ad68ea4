# SPDX-License-Identifier: Apache-2.0
"""A directory that a layer does not list keeps its attributes from below."""

import os
from pathlib import Path

import pytest

from tests.support.images import build_image, layer
from tests.support.layouts import write_layout
from tests.support.provisioners import provisioner
from tests.support.tar import Dir, Entry, File, Opaque, Whiteout
from worker.provisioner import Elsewhere
from worker.store.implied import LayerTree, Look, plan_overrides

_BASE = (
    Dir("tmp", mode=0o1777, uid=7, mtime_ns=5_000_000_001),
    Dir("tmp/deep", mode=0o700),
    File("tmp/deep/base", b"x"),
)


@pytest.mark.root
@pytest.mark.redis
@pytest.mark.parametrize("backend", ["overlay", "copy"])
@pytest.mark.parametrize(
    ("upper", "expected"),
    [
        ((File("tmp/new", b"x"),), (0o1777, 7)),
        ((File("tmp/deep/new", b"x"),), (0o1777, 7)),
        ((Dir("tmp", mode=0o750, uid=9), File("tmp/new", b"x")), (0o750, 9)),
        ((Whiteout("tmp"), File("other", b"x")), None),
        ((Opaque("tmp"), File("tmp/new", b"x")), (0o755, 0)),
    ],
)
def test_the_rootfs_has_the_attributes_that_the_image_means(
    tmp_path: Path, redis_url: str, backend: str, upper: tuple[Entry, ...], expected: tuple[int, int] | None
) -> None:
    """The tmp directory stays sticky when a layer only puts a file there."""
    write_layout(tmp_path / "layout", {"latest": build_image([layer(*_BASE), layer(*upper)])})

    with provisioner(tmp_path, redis_url) as node:
        info = node.provision({"container_id": "c1", "image": f"oci:{tmp_path}/layout:latest", "backend": backend})

        assert not isinstance(info, Elsewhere)
        directory = Path(info["rootfs"]) / "tmp"
        if expected is None:
            assert not directory.exists()
        else:
            status = directory.stat()
            assert (status.st_mode & 0o7777, status.st_uid) == expected
        if expected == (0o1777, 7):
            assert status.st_mtime_ns == 5_000_000_001
            assert (directory / "deep").stat().st_mode & 0o7777 == 0o700
            assert (directory / "deep" / "base").read_bytes() == b"x"


def _layers(*implied: str, count: int = 3) -> list[LayerTree]:
    return [LayerTree(tree_dir=Path(f"/{number}"), implied_dirs=frozenset(implied)) for number in range(count)]


def test_what_all_layers_imply_needs_nothing() -> None:
    """There is nothing below to take attributes from."""
    assert plan_overrides(_layers("a"), look=lambda _layer, _path: Look.DIRECTORY) == {}


def test_a_barrier_ends_the_search() -> None:
    """What lies below a whiteout or a file is another directory of the same name."""
    base, middle, top = _layers("a")
    listed = LayerTree(tree_dir=base.tree_dir, implied_dirs=frozenset())
    seen = {base.tree_dir: Look.DIRECTORY, middle.tree_dir: Look.BARRIER, top.tree_dir: Look.DIRECTORY}

    assert plan_overrides([listed, middle, top], look=lambda layer, _: seen[layer.tree_dir]) == {}

    seen[middle.tree_dir] = Look.ABSENT
    assert set(plan_overrides([listed, middle, top], look=lambda layer, _: seen[layer.tree_dir])) == {".", "a"}


def test_no_link_is_followed(tmp_path: Path) -> None:
    """A layer's symlink in the way is a barrier, not a road."""
    (tmp_path / "layer" / "real").mkdir(parents=True)
    os.symlink("real", tmp_path / "layer" / "link")  # noqa: PTH211 - relative, as in an image

    from worker.store.implied import look_on_disk  # noqa: PLC0415 - for this one case

    tree = LayerTree(tree_dir=tmp_path / "layer", implied_dirs=frozenset())
    assert look_on_disk(tree, "real") is Look.DIRECTORY
    assert look_on_disk(tree, "link") is Look.BARRIER
    assert look_on_disk(tree, "link/x") is Look.BARRIER
    assert look_on_disk(tree, "gone") is Look.ABSENT
