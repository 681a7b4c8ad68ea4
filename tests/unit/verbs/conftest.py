# SPDX-License-Identifier: Apache-2.0
"""A node and a small image for the verbs' tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.provisioners import provisioner, small_layout
from worker.provisioner import Provisioner


@pytest.fixture(params=["erofs", "directory"])
def layer_format(request: pytest.FixtureRequest) -> str:
    """Every verb is tested with layers of either kind."""
    return str(request.param)


@pytest.fixture
def node(tmp_path: Path, redis_url: str, layer_format: str) -> Iterator[Provisioner]:
    """One node with an empty store."""
    with provisioner(tmp_path, redis_url, layer_format=layer_format) as made:
        yield made


@pytest.fixture
def image(tmp_path: Path) -> str:
    """The reference of a small image."""
    return small_layout(tmp_path / "layout")
