# SPDX-License-Identifier: Apache-2.0
"""Trash: renamed out of sight in an instant, deleted at leisure."""

import logging
import uuid
from pathlib import Path

from worker.errors import RemovalFailed
from worker.linux.remove import remove_tree

_log = logging.getLogger(__name__)


def discard(path: Path, trash_dir: Path) -> bool:
    """Rename `path` into the trash; False if it is not there (any more).

    Raises:
        RemovalFailed: The filesystem refused: it is read-only, broken, or a directory immutable.
    """
    try:
        path.rename(trash_dir / f"{path.name[:80]}.{uuid.uuid4().hex}")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise RemovalFailed(path=str(path), failures=error.strerror or str(error)) from error
    return True


def empty_trash(trash_dir: Path) -> int:
    """Delete everything in the trash and return the bytes freed.

    Effect: safe beside itself and after a crash. What cannot be deleted, an immutable file say, stays and is logged: it
        is out of sight, so no verb fails because of what another one left. Cost: proportional to the files deleted.
    """
    return sum(_delete(path) for path in sorted(trash_dir.iterdir()))


def _delete(path: Path) -> int:
    try:
        return remove_tree(path)
    except RemovalFailed as error:
        _log.warning("%s; tried again when the trash is emptied next", error)
        return 0
