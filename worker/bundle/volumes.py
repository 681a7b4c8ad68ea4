# SPDX-License-Identifier: Apache-2.0
"""Directories for what an image calls its volumes: data that belong to the container, not to its root filesystem.

Each begins as a copy of what the image has there, owner and mode included, as with Docker. A path is looked up inside
the rootfs, so that a link in the image cannot have the host's files copied (CVE-2022-23648).
"""

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from worker.backends.assembly import assemble
from worker.errors import InvalidImage
from worker.linux import durable
from worker.linux.inside import opened_inside
from worker.linux.remove import remove_tree

_UNRESOLVABLE = frozenset({errno.ELOOP, errno.ENAMETOOLONG})


def make_volumes(volumes_dir: Path, paths: Sequence[str], *, rootfs_dir: Path, image: str) -> Mapping[str, Path]:
    """Make a directory for each path, anew.

    Effect: survives power loss on return. Cost: a copy of what is there, sharing blocks where the filesystem can.

    Args:
        volumes_dir: Is made if there are any; what an earlier call left of it goes.
        paths: Absolute.
        rootfs_dir: Shown, and written to by nobody.
        image: Named in errors.

    Raises:
        InvalidImage: A path is something else than a directory, or leads in a circle.
        StorageExhausted: No room for the copies.
    """
    remove_tree(volumes_dir)
    if not paths:
        return {}
    places = {path: volumes_dir / str(number) for number, path in enumerate(paths)}
    with durable.reporting_full_disk(volumes_dir):
        volumes_dir.mkdir(0o700)
        for path, place in places.items():
            _seed(path, place, rootfs_dir=rootfs_dir, image=image)
        durable.sync_filesystem(volumes_dir)
    return places


def _seed(path: str, place: Path, *, rootfs_dir: Path, image: str) -> None:
    with ExitStack() as stack:
        try:
            source = stack.enter_context(opened_inside(rootfs_dir, path))
        except OSError as error:
            if error.errno not in _UNRESOLVABLE:
                raise
            raise InvalidImage(image=image, reason=f"its volume {path!r:.160}: {error.strerror}") from error
        if source is None:
            place.mkdir(0o755)
            return
        if not stat.S_ISDIR(os.fstat(source).st_mode):
            raise InvalidImage(image=image, reason=f"its volume {path!r:.160} is not a directory")
        place.mkdir(0o700)
        assemble([Path(f"/proc/self/fd/{source}")], place)
