# SPDX-License-Identifier: Apache-2.0
"""From a stored image to the lower directories of one rootfs on this node, in either kind of layer format.

Trees are stacked as they lie in the store. An image in EROFS format is one directory: its layers merged, mounted once
for all rootfses of the node that stand on it.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from worker.container_id import ContainerId
from worker.errors import RecordCorrupt
from worker.image import LayerFormat, LowerDir
from worker.oci.digest import Digest
from worker.records import ProvisionInfo
from worker.store.lower import lower_dirs
from worker.store.merged import MergedImage, merge_image
from worker.verbs.node import Node

_log = logging.getLogger(__name__)


def prepare_stack(node: Node, digest: Digest, layers: Sequence[Digest], *, layer_format: LayerFormat) -> None:
    """Compute what an image needs beside its layers, once per store: before a lock is taken for the mount.

    Locking: the caller's ref keeps the image; no lock needed.
    """
    if layer_format is LayerFormat.EROFS:
        _merged(node, digest, layers)
    else:
        lower_dirs(node.store, digest, layers, layer_format=layer_format)


def open_stack(
    node: Node, digest: Digest, layers: Sequence[Digest], *, layer_format: LayerFormat, user: str
) -> tuple[LowerDir, ...]:
    """Return the directories to stack, base first, and keep them there for the user until `close_stack`.

    Locking: the caller's ref keeps the image.

    Raises:
        LayerVanished: A layer is not in the store.
        LayerDamaged: A layer is damaged; it is not used.
        LayerLimitExceeded: The layers are too large together to be merged.
        MountFailed: The kernel refused the image.
    """
    if layer_format is not LayerFormat.EROFS:
        return lower_dirs(node.store, digest, layers, layer_format=layer_format)
    return (LowerDir(path=_mounted(node, digest, layers, user=user)),)


def close_stack(node: Node, info: ProvisionInfo) -> None:
    """Let go of what `open_stack` kept for the rootfs."""
    if info.layer_format == LayerFormat.EROFS:
        user = stack_user(ContainerId.parse(info.container_id), info.name)
        node.image_mounts.release(Digest.parse(info.digest), user=user)


def merge_anew(node: Node, digest: Digest, layers: Sequence[Digest]) -> None:
    """Compute an image's merged file again and replace it; who comes later mounts the new one."""
    _merged(node, digest, layers, anew=True)
    node.image_mounts.detach(digest)


def stack_user(container_id: ContainerId, name: str) -> str:
    """Name a rootfs among the users of an image; neither part holds a slash."""
    return f"{container_id}/{name}"


def _mounted(node: Node, digest: Digest, layers: Sequence[Digest], *, user: str) -> Path:
    """Mount the image; its merged file, if damaged, is computed anew first."""
    image = _merged(node, digest, layers)
    try:
        return node.image_mounts.acquire(digest, image, user=user)
    except RecordCorrupt as error:
        _log.warning("%s; it is computed anew", error)
        return node.image_mounts.acquire(digest, _merged(node, digest, layers, anew=True), user=user)


def _merged(node: Node, digest: Digest, layers: Sequence[Digest], *, anew: bool = False) -> MergedImage:
    stack = node.store.layers.stack(layers, layer_format=LayerFormat.EROFS)
    layer_dirs = [path for path, _ in stack]
    return merge_image(node.store.paths.merged_path(str(digest)), layer_dirs, limits=node.limits, anew=anew)
