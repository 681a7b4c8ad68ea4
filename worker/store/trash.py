# SPDX-License-Identifier: Apache-2.0
"""Trash: renamed out of sight in an instant, deleted at leisure."""

import uuid
from pathlib import Path

from worker.linux.remove import remove_tree


def discard(path: Path, trash_dir: Path) -> bool:
    """Rename `path` into the trash; False if it is not there (any more)."""
    try:
        path.rename(trash_dir / f"{path.name[:80]}.{uuid.uuid4().hex}")
    except FileNotFoundError:
        return False
    return True


def empty_trash(trash_dir: Path) -> int:
    """Delete everything in the trash and return the bytes freed.

    Effect: safe beside itself and after a crash. Cost: proportional to the files deleted.
    """
    return sum(remove_tree(path) for path in sorted(trash_dir.iterdir()))
