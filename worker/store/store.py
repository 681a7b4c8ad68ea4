# SPDX-License-Identifier: Apache-2.0
"""`Store`: one store directory, opened."""

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from worker.errors import RecordCorrupt
from worker.linux import durable
from worker.linux.flock import locked
from worker.paths import StorePaths
from worker.store.fence import Fence
from worker.store.images import Images
from worker.store.layers import Layers
from worker.store.openers import Openers
from worker.store.partial import Partials


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A content-addressed store of images and layers.

    Attributes:
        identity: Names the store, whichever nodes and paths it is reached by.
        paths: Its directory tree.
        fence: The flock and token under the cluster lock.
        images: Manifests, configurations, references and refs.
        openers: Makes marks of who opened private images.
        layers: Committed layers.
        partials: Beginnings of large blobs.
    """

    identity: str
    paths: StorePaths
    fence: Fence
    images: Images
    openers: Openers
    layers: Layers
    partials: Partials

    @classmethod
    def open(cls, store_dir: Path) -> Self:
        """Open the store, making the directory a store first if it is none yet.

        Effect: survives power loss on return; safe to call from many processes at once.

        Raises:
            RecordCorrupt: `store.json` is there but unreadable.
        """
        paths = StorePaths(store_dir)
        for directory in (store_dir, paths.images_dir, paths.references_dir, paths.layers_dir):
            durable.make_dirs(directory)
        for directory in (paths.staging_dir, paths.partial_dir, paths.trash_dir):
            durable.make_dirs(directory)
        return cls(
            identity=_identity(paths),
            paths=paths,
            fence=Fence(paths),
            images=Images(paths),
            openers=Openers(paths),
            layers=Layers(paths),
            partials=Partials(paths.partial_dir),
        )


def _identity(paths: StorePaths) -> str:
    """Read the identity; the first process to come mints it, under the store's flock."""
    if not paths.identity_path.exists():
        with locked(paths.lock_path, exclusive=True):
            if not paths.identity_path.exists():
                durable.write_file(paths.identity_path, json.dumps({"id": uuid.uuid4().hex}).encode())
    try:
        return str(json.loads(paths.identity_path.read_bytes())["id"])
    except (ValueError, KeyError, TypeError) as error:
        raise RecordCorrupt(path=str(paths.identity_path), reason="it holds no store identity") from error
