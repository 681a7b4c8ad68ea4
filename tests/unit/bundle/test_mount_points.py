# SPDX-License-Identifier: Apache-2.0
"""What a runtime needs to find in a rootfs, whoever has it there."""

import os
from pathlib import Path

import pytest

from worker.bundle.execution import Execution
from worker.bundle.mount_points import check_mount_points, make_mount_points, mount_points
from worker.errors import DirectoryMissing


@pytest.mark.parametrize(
    ("execution", "expected"),
    [
        (Execution(), ("/dev", "/proc", "/sys")),
        (Execution(cwd="/srv/app"), ("/dev", "/proc", "/srv/app", "/sys")),
        (Execution(cwd="//srv/../opt/"), ("/dev", "/opt", "/proc", "/sys")),
        (Execution(volumes=("/data", "/data/sub", "/data-x")), ("/data", "/data-x", "/dev", "/proc", "/sys")),
        (Execution(volumes=("/data",), cwd="/data/work"), ("/data", "/dev", "/proc", "/sys")),
        (Execution(cwd="/proc/self"), ("/dev", "/proc", "/sys")),
    ],
)
def test_what_is_below_another_mount_is_not_the_rootfss(execution: Execution, expected: tuple[str, ...]) -> None:
    """The runtime's own, the image's volumes, and where the program starts."""
    assert mount_points(execution) == expected


def test_what_is_made_is_what_is_needed(tmp_path: Path) -> None:
    """For everybody to enter, whoever's umask it is, and again without harm."""
    top_dir = tmp_path / "made"
    old = os.umask(0o077)
    try:
        for _ in range(2):
            make_mount_points(top_dir, ["/proc", "/var/lib/data"])
    finally:
        os.umask(old)

    check_mount_points(top_dir, ["/proc", "/var/lib/data"], image="i")
    assert {path.stat().st_mode & 0o7777 for path in (top_dir, *top_dir.rglob("*"))} == {0o755}


@pytest.mark.parametrize(
    "path", ["/none", "/file", "/file/below", "/circle", "/out", f"/{'x' * 256}", f"/{'x' * 255}" * 17]
)
def test_the_first_that_is_missing_is_named(tmp_path: Path, path: str) -> None:
    """A link leads nowhere but to the rootfs's own; a name that nothing can have is had by nobody."""
    rootfs = tmp_path / "rootfs"
    (rootfs / "proc").mkdir(parents=True)
    (rootfs / "file").touch()
    (rootfs / "circle").symlink_to("circle")
    (rootfs / "out").symlink_to("../outside")
    (tmp_path / "outside").mkdir()
    make_mount_points(tmp_path / "made", [path])

    with pytest.raises(DirectoryMissing) as caught:
        check_mount_points(rootfs, ["/proc", path, "/other"], image="example:1")

    assert caught.value.path == path
    assert "example:1" in str(caught.value)


def test_a_link_to_a_directory_is_one(tmp_path: Path) -> None:
    """As /var/run is in many an image."""
    (tmp_path / "run").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "run").symlink_to("/run")

    check_mount_points(tmp_path, ["/var/run"], image="i")
