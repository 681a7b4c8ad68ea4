# SPDX-License-Identifier: Apache-2.0
"""The kernel reads a layer's tree as the builder meant it."""

import os
from pathlib import Path

import pytest

from tests.support.tar import Dir, Entry, File, Opaque, Symlink, Whiteout
from tests.unit.layers.harness import unpack
from worker.linux import libc

LOWER = [Dir("a"), File("a/1"), File("a/2"), Dir("b"), File("b/1"), File("c"), Symlink("s", "a"), Dir("e"), File("e/1")]
UPPER = [
    Whiteout("a/1"),
    File("b/2"),
    Opaque("b"),
    Whiteout("c"),
    Whiteout("only/here"),
    File("s/x"),
    Whiteout("e"),
    Dir("e"),
    File("e/2"),
]


def make(entries: list[Entry], staging_dir: Path) -> Path:
    """Build a layer and return its tree."""
    staging_dir.mkdir()
    unpack(entries, staging_dir)
    return staging_dir / "tree"


@pytest.mark.root
def test_overlayfs_shows_the_layers_stacked(tmp_path: Path) -> None:
    """Whiteouts and opaque directories hide; nothing of them shows, also where nothing is below."""
    lower, upper = make(LOWER, tmp_path / "lower"), make(UPPER, tmp_path / "upper")
    merged = tmp_path / "merged"
    merged.mkdir()
    options = f"lowerdir={upper}:{lower}".encode()

    libc.call("mount", b"overlay", os.fsencode(merged), b"overlay", 0, options)
    try:
        seen = sorted(str(path.relative_to(merged)) for path in merged.rglob("*"))
    finally:
        libc.call("umount2", os.fsencode(merged), 0)

    assert seen == ["a", "a/2", "b", "b/2", "e", "e/2", "only", "s", "s/x"]


@pytest.mark.root
def test_overlayfs_ignores_the_mark_on_a_layer_s_root(tmp_path: Path) -> None:
    """Why the record says that a layer is opaque: whoever stacks it must leave out what is below."""
    lower, upper = make([File("old")], tmp_path / "lower"), make([Opaque(), File("new")], tmp_path / "upper")
    merged = tmp_path / "merged"
    merged.mkdir()

    libc.call("mount", b"overlay", os.fsencode(merged), b"overlay", 0, f"lowerdir={upper}:{lower}".encode())
    try:
        seen = sorted(path.name for path in merged.iterdir())
    finally:
        libc.call("umount2", os.fsencode(merged), 0)

    assert seen == ["new", "old"]
