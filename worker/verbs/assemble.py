# SPDX-License-Identifier: Apache-2.0
"""The last step of provision, under the container's flock and the shared lock: record, mount, tell Redis."""

from collections.abc import Callable
from dataclasses import dataclass

from worker.backend import Backend
from worker.errors import ContainerDestroying, StateLost
from worker.image import LayerFormat
from worker.linux import durable
from worker.oci.platform import Platform
from worker.paths import RootfsPaths
from worker.records import ProvisionInfo, RootfsRecord
from worker.requests import ProvisionRequest
from worker.store.images import RefOwner, StoredImage
from worker.verbs.begin import Begun, conflict
from worker.verbs.bundled import add_bundle, complete_bundle, with_bundle, with_mount_points
from worker.verbs.home import Home
from worker.verbs.node import Node
from worker.verbs.remount import bring_back, show
from worker.verbs.stack import open_stack, stack_user
from worker.verbs.waits import Waits


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One provision under way: the request, and what was decided for it."""

    request: ProvisionRequest
    begun: Begun
    platform: Platform
    backend: Backend
    layer_format: LayerFormat
    owner: RefOwner
    waits: Waits

    @property
    def name(self) -> str:
        """Of the rootfs."""
        return self.request.name

    @property
    def generation(self) -> str:
        """Of the container."""
        return self.begun.generation


def recorded(node: Node, work: Work, home: Home) -> ProvisionInfo | None:
    """Bring back and answer what the record has, whatever the reference means by now; None if it has nothing."""
    entry = home.read().rootfses.get(work.name)
    if entry is None:
        return None
    bring_back(node, home.container_id, entry)
    _finish(node, work, entry.info)
    if work.request.bundle and entry.info.bundle is None:
        # After it is shown: a refusal of the bundle must not undo a rootfs that somebody may have been answered.
        entry = add_bundle(node, home, entry)
        show(node, home.container_id, home.read())
    return entry.info


def check_current(node: Node, work: Work, home: Home) -> None:
    """Make sure that this is still the container that was begun, with its flock held.

    A destroy that comes later finds the flock taken and takes down what is mounted under it.
    """
    container_id = work.request.container_id
    record = home.read()
    taken = record.rootfses.get(work.name)
    if taken is not None and taken.info.image != work.request.image.normalised:
        raise conflict(work.request, taken.info.image)
    if record.rootfses and record.generation != work.generation:
        show(node, container_id, record)
        raise StateLost(container_id=str(container_id), reason="Redis had shown an earlier one of this id")
    if node.containers.is_current(container_id, generation=work.generation):
        return
    if node.epoch.join().mark != work.begun.epoch:
        raise StateLost(container_id=str(container_id), reason="Redis lost it")
    raise ContainerDestroying(container_id=str(container_id))


def mount(node: Node, work: Work, image: StoredImage, home: Home, *, unlock: Callable[[], None]) -> ProvisionInfo:
    """Record, mount, tell Redis; in this order, so that whatever is mounted is recorded.

    What takes its time, a backend that copies or a bundle with volumes, gives the cluster lock back first: the ref
    keeps the image, the flock the container.

    A duplicate of this request that was faster has decided what the rootfs stands on, perhaps another image: the
    reference may have moved in between.
    """
    if (earlier := recorded(node, work, home)) is not None:
        if earlier.digest != str(image.digest):
            node.store.images.drop(image.digest, work.owner)
        return earlier
    request = work.request
    paths = node.work.rootfs_paths(request.container_id.parts, name=work.name)
    user = stack_user(request.container_id, work.name)
    info = _info(node, work, image, paths)
    if request.bundle:
        info = with_bundle(info, paths)
    durable.make_dirs_unsynced(paths.rootfs_home)
    entry = RootfsRecord(info=info, is_read_only=request.read_only)
    home.write(home.read().with_rootfs(entry, generation=work.generation))
    stack = open_stack(node, image.digest, image.layers, layer_format=work.layer_format, user=user)
    if work.backend.is_bulk:
        unlock()
    stack = with_mount_points(stack, entry, paths, backend=work.backend)
    work.backend.provision(stack, paths, is_read_only=request.read_only)
    if request.bundle:
        unlock()
        complete_bundle(entry, paths)
    _finish(node, work, info)
    return info


def _finish(node: Node, work: Work, info: ProvisionInfo) -> None:
    is_shown = node.containers.finish_provision(
        work.request.container_id, name=work.name, image=info.image, generation=work.generation, info=info.to_json()
    )
    if not is_shown and node.containers.is_destroying(work.request.container_id, generation=work.generation):
        # The destroy waits for this flock. A retry would come after it, and bring back what is to be no more.
        raise ContainerDestroying(container_id=info.container_id)
    if not is_shown:
        raise StateLost(container_id=info.container_id, reason="another transition came first")


def _info(node: Node, work: Work, image: StoredImage, paths: RootfsPaths) -> ProvisionInfo:
    volumes = work.backend.ephemeral_volumes(paths, is_read_only=work.request.read_only)
    return ProvisionInfo(
        container_id=str(work.request.container_id),
        name=work.name,
        node=node.name,
        image=work.request.image.normalised,
        digest=str(image.digest),
        backend=work.backend.name,
        layer_format=work.layer_format.value,
        layers=tuple(str(diff_id) for diff_id in image.layers),
        rootfs=str(paths.rootfs_dir),
        ephemeral_volumes=tuple(str(path) for path in volumes),
        docker_manifest=image.docker_manifest,
        appc_manifest=image.appc_manifest,
    )
