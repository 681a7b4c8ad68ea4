# SPDX-License-Identifier: Apache-2.0
"""What tests that mount EROFS images need."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from worker.layers.erofs.probe import erofs_unsupported_reason


def _reason() -> str | None:
    with TemporaryDirectory() as directory:
        return erofs_unsupported_reason(Path(directory))


REASON = _reason()


@pytest.fixture
def erofs_dir(tmp_path: Path) -> Path:
    """A directory whose files can be mounted as EROFS; where none can, the test is skipped, and in CI fails."""
    if REASON is not None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"EROFS: {REASON}")
    return tmp_path
