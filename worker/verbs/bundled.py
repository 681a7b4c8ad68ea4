# SPDX-License-Identifier: Apache-2.0
"""The runtime bundle of a rootfs, for those who asked for one.

Its directory is the rootfs's own home, so whatever takes a rootfs away takes its bundle too. The record names it before
it is there, as it names a mount: who is killed in between leaves what `complete_bundle` completes.
"""

from dataclasses import replace

from worker.backend import Backend
from worker.bundle.execution import Execution, execution_of
from worker.bundle.mount_points import make_mount_points, mount_points
from worker.bundle.write import BundlePlan, write_bundle
from worker.container_id import ContainerId
from worker.errors import InvalidArgument
from worker.image import LowerDir
from worker.paths import RootfsPaths
from worker.records import ProvisionInfo, RootfsRecord
from worker.requests import ProvisionRequest
from worker.verbs.home import Home
from worker.verbs.node import Node


def check_bundle(node: Node, request: ProvisionRequest) -> None:
    """Refuse a bundle that could not be run.

    Raises:
        InvalidArgument: One is asked for, of a node that does not run as root.
    """
    if request.bundle and node.is_squashed:
        reason = "this node does not run as root, so its rootfses have no owners to run programs as"
        raise InvalidArgument(argument="bundle", value="True", reason=reason)


def with_bundle(info: ProvisionInfo, paths: RootfsPaths) -> ProvisionInfo:
    """Return the answer for a rootfs that has a bundle; its volumes count towards the disk quota.

    Raises:
        InvalidImage: The image's configuration is malformed.
    """
    volumes = (str(paths.volumes_dir),) if _execution_of(info).volumes else ()
    return replace(info, bundle=str(paths.bundle_dir), ephemeral_volumes=(*info.ephemeral_volumes, *volumes))


def with_mount_points(
    stack: tuple[LowerDir, ...], entry: RootfsRecord, paths: RootfsPaths, *, backend: Backend
) -> tuple[LowerDir, ...]:
    """Return the stack of a rootfs, and below it what a runtime mounts on if it could not make it later.

    Lowest, so that whatever the image has there hides it. Where the backend has no room for one more, or a layer
    hides what is below, `complete_bundle` finds out what is missing.

    Raises:
        InvalidImage: The image's configuration is malformed.
        StorageExhausted: No room.
    """
    is_full = backend.max_lower_dirs is not None and len(stack) >= backend.max_lower_dirs
    if entry.info.bundle is None or not entry.is_read_only or is_full:
        return stack
    make_mount_points(paths.mount_points_dir, mount_points(_execution_of(entry.info)))
    return (LowerDir(path=paths.mount_points_dir), *stack)


def complete_bundle(entry: RootfsRecord, paths: RootfsPaths) -> None:
    """Write the bundle that the record names, if it is not there. Locking: the caller holds the container's flock.

    Cost: one look if it is there, else a copy of the image's volumes.

    Raises:
        UserNotFound: The image's user is none of the rootfs's.
        InvalidImage: The image's configuration is malformed.
        DirectoryMissing: The rootfs refuses writes and lacks what a runtime needs.
    """
    if entry.info.bundle is None:
        return
    plan = BundlePlan(
        bundle_dir=paths.bundle_dir,
        rootfs_dir=paths.rootfs_dir,
        image=entry.info.image,
        hostname=ContainerId.parse(entry.info.container_id).parts[-1],
        is_read_only=entry.is_read_only,
        docker_manifest=entry.info.docker_manifest,
        appc_manifest=entry.info.appc_manifest,
    )
    write_bundle(plan)


def add_bundle(node: Node, home: Home, entry: RootfsRecord) -> RootfsRecord:
    """Give a rootfs without a bundle one, on disk and then in the record; errors as `complete_bundle`.

    Effect: when it fails, the rootfs is what it was.
    """
    paths = node.work.rootfs_paths(home.container_id.parts, name=entry.info.name)
    added = replace(entry, info=with_bundle(entry.info, paths))
    complete_bundle(added, paths)
    record = home.read()
    home.write(replace(record, rootfses={**record.rootfses, entry.info.name: added}))
    return added


def _execution_of(info: ProvisionInfo) -> Execution:
    manifests = {"docker_manifest": info.docker_manifest, "appc_manifest": info.appc_manifest}
    return execution_of(**manifests, image=info.image)
