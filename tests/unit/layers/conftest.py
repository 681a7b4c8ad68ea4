# SPDX-License-Identifier: Apache-2.0
"""What every test of layers needs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.linux.remove import remove_tree


@pytest.fixture(autouse=True)
def _leave_no_deep_tree(tmp_path: Path) -> Iterator[None]:
    """Remove what a test built: pytest's own removal recurses, and fails on trees as deep as these."""
    yield
    for path in tmp_path.iterdir():
        remove_tree(path)
