# SPDX-License-Identifier: Apache-2.0
"""Volumes begin with what the image has there, and with nothing of the host."""

import os
from pathlib import Path

import pytest

from worker.bundle.volumes import make_volumes
from worker.errors import InvalidImage


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A rootfs with data, and with links that lead to it and away."""
    root = tmp_path / "rootfs"
    (root / "data" / "sub").mkdir(parents=True)
    (root / "data" / "sub" / "file").write_text("seed")
    (root / "data").chmod(0o2750)
    (root / "inner").symlink_to("/data")
    (root / "outer").symlink_to("../../../../../../../../secret")
    (root / "secret").mkdir()
    (root / "secret" / "of").write_text("the image")
    (root / "plain").write_text("file")
    (root / "loop").symlink_to("loop")
    return root


def _made(tmp_path: Path, rootfs: Path, *paths: str) -> dict[str, Path]:
    return dict(make_volumes(tmp_path / "volumes", paths, rootfs_dir=rootfs, image="example:1"))


def test_a_volume_is_a_copy(tmp_path: Path, rootfs: Path) -> None:
    """Contents, mode and owner; the rootfs keeps its own."""
    places = _made(tmp_path, rootfs, "/data")

    assert (places["/data"] / "sub" / "file").read_text() == "seed"
    assert places["/data"].stat().st_mode == (rootfs / "data").stat().st_mode
    (places["/data"] / "sub" / "file").write_text("changed")
    assert (rootfs / "data" / "sub" / "file").read_text() == "seed"


@pytest.mark.root
def test_owners_are_kept(tmp_path: Path, rootfs: Path) -> None:
    """A database that runs as its own user finds its directory its own."""
    os.chown(rootfs / "data", 70, 71)

    status = _made(tmp_path, rootfs, "/data")["/data"].stat()

    assert (status.st_uid, status.st_gid) == (70, 71)


def test_a_volume_of_nothing_is_empty(tmp_path: Path, rootfs: Path) -> None:
    """Also where the path goes on below a file."""
    places = _made(tmp_path, rootfs, "/new/place", "/plain/below")

    assert [list(place.iterdir()) for place in places.values()] == [[], []]


def test_a_link_stays_in_the_rootfs(tmp_path: Path, rootfs: Path) -> None:
    """The host's file of the same path is not even looked at (CVE-2022-23648)."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "of").write_text("the host")

    places = _made(tmp_path, rootfs, "/inner", "/outer")

    assert (places["/inner"] / "sub" / "file").read_text() == "seed"
    assert (places["/outer"] / "of").read_text() == "the image"


def test_a_file_is_no_volume(tmp_path: Path, rootfs: Path) -> None:
    """The error names both."""
    with pytest.raises(InvalidImage, match=r"example:1.*'/plain'"):
        _made(tmp_path, rootfs, "/plain")


def test_a_circle_of_links_is_no_volume(tmp_path: Path, rootfs: Path) -> None:
    """Nor does anybody go round in it."""
    with pytest.raises(InvalidImage, match="'/loop'"):
        _made(tmp_path, rootfs, "/loop")


def test_what_a_killed_call_left_is_made_anew(tmp_path: Path, rootfs: Path) -> None:
    """Half a copy is not a beginning."""
    (tmp_path / "volumes" / "0").mkdir(parents=True)
    (tmp_path / "volumes" / "0" / "half").touch()

    places = _made(tmp_path, rootfs, "/data")

    assert [path.name for path in places["/data"].iterdir()] == ["sub"]


def test_without_volumes_there_is_no_directory(tmp_path: Path, rootfs: Path) -> None:
    """As most images."""
    assert _made(tmp_path, rootfs) == {}
    assert not (tmp_path / "volumes").exists()
