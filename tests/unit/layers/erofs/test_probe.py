# SPDX-License-Identifier: Apache-2.0
"""The probe says what a real mount says."""

from pathlib import Path

import pytest

from tests.support.mounts import mounts_below
from tests.unit.layers.erofs.conftest import REASON
from worker.layers.erofs.probe import erofs_unsupported_reason
from worker.linux.mount import Mount, Option, mount_filesystem, unmount_tree


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """Whether it works or not, and the answer is the same twice."""
    assert erofs_unsupported_reason(tmp_path) == erofs_unsupported_reason(tmp_path) or REASON is not None

    assert (list(tmp_path.iterdir()), mounts_below(tmp_path)) == ([], [])


def test_a_missing_directory_is_no_place_for_layers(tmp_path: Path) -> None:
    """It is named."""
    reason = erofs_unsupported_reason(tmp_path / "absent")

    assert reason is not None
    assert "absent" in reason or "root" in reason


@pytest.mark.root
def test_a_filesystem_that_cannot_back_images_is_told(tmp_path: Path) -> None:
    """The kernel reads no images from overlayfs, which containers often are on."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = tuple(Option(f"{name}dir", tmp_path / name) for name in ("lower", "upper", "work"))
    mount_filesystem(Mount(fs_type="overlay", source="overlay", target=tmp_path / "merged", options=options))
    try:
        reason = erofs_unsupported_reason(tmp_path / "merged")
        assert reason is not None
        assert "trial mount" in reason
        assert list((tmp_path / "merged").iterdir()) == []
    finally:
        unmount_tree(tmp_path / "merged")
