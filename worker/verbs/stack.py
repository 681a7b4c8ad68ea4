# SPDX-License-Identifier: Apache-2.0
"""From a stored image to the lower directories of one rootfs on this node, in either kind of layer format.

Trees are stacked as they lie in the store. An image in EROFS format is one directory: its layers merged, mounted once
for all rootfses of the node that stand on it.
"""

from collections.abc import Sequence

from worker.container_id import ContainerId
from worker.image import LayerFormat, LowerDir
from worker.oci.digest import Digest
from worker.records import ProvisionInfo
from worker.store.lower import lower_dirs
from worker.store.merged import MergedImage, merge_image
from worker.verbs.node import Node


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
        MountFailed: The kernel refused the image.
    """
    if layer_format is not LayerFormat.EROFS:
        return lower_dirs(node.store, digest, layers, layer_format=layer_format)
    return (LowerDir(path=node.image_mounts.acquire(digest, _merged(node, digest, layers), user=user)),)


def close_stack(node: Node, info: ProvisionInfo) -> None:
    """Let go of what `open_stack` kept for the rootfs."""
    if info.layer_format == LayerFormat.EROFS:
        user = stack_user(ContainerId.parse(info.container_id), info.name)
        node.image_mounts.release(Digest.parse(info.digest), user=user)


def stack_user(container_id: ContainerId, name: str) -> str:
    """Name a rootfs among the users of an image; neither part holds a slash."""
    return f"{container_id}/{name}"


def _merged(node: Node, digest: Digest, layers: Sequence[Digest]) -> MergedImage:
    stack = node.store.layers.stack(layers, layer_format=LayerFormat.EROFS)
    return merge_image(node.store.paths.merged_path(str(digest)), [path for path, _ in stack])
