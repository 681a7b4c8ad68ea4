# SPDX-License-Identifier: Apache-2.0
"""What containers and images take of this machine's disk, measured without a lock and without changing anything."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worker.cli.stored import StoredImageView, read_store
from worker.container_id import ContainerId
from worker.errors import InvalidArgument, RecordCorrupt
from worker.linux.disk_usage import DiskMeter
from worker.linux.statfs import is_mount_point
from worker.paths import StorePaths, WorkPaths
from worker.records import ProvisionInfo, read_record
from worker.settings import Settings
from worker.store.layers import Layers
from worker.verbs.home import containers_on_disk


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeUsage:
    """One of a rootfs's `ephemeral_volumes`."""

    path: str
    disk_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RootfsUsage:
    """One rootfs.

    Attributes:
        name: Within the container.
        image: The reference, normalised; "" if no record tells.
        backend: What assembled it; "" if no record tells.
        disk_bytes: All that is the rootfs's own: what was written into it, or a copied tree, read-only or not. Layers
            it stands on are not.
        ephemeral_volumes: Those of its ProvisionInfo, the part that counts towards a quota.
    """

    name: str
    image: str
    backend: str
    disk_bytes: int
    ephemeral_volumes: tuple[VolumeUsage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerUsage:
    """One container; those nested in it are listed by themselves.

    Attributes:
        container_id: Its id.
        disk_bytes: Of its rootfses.
        rootfses: By name, those that no record tells of included.
        error: Why its record cannot be read, or "".
    """

    container_id: str
    disk_bytes: int
    rootfses: tuple[RootfsUsage, ...]
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerUsage:
    """One layer of an image, in all formats it is stored in.

    Attributes:
        diff_id: Its DiffID.
        disk_bytes: On disk; 0 if it is not in the store.
        images: How many images of the store have it.
    """

    diff_id: str
    disk_bytes: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUsage:
    """One image.

    Attributes:
        digest: Of the manifest.
        references: What resolved to it.
        disk_bytes: Of its layers and `own_bytes`.
        exclusive_bytes: Of that, what no other image has: what would be free without it.
        shared_bytes: The rest.
        own_bytes: Manifest, configuration and what is made of the layers for the image as a whole.
        layers: Base first, each once.
    """

    digest: str
    references: tuple[str, ...]
    disk_bytes: int
    exclusive_bytes: int
    shared_bytes: int
    own_bytes: int
    layers: tuple[LayerUsage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUsage:
    """A node's disk.

    Attributes:
        node: Its name.
        work_dir: Where its containers are.
        store_dir: Where its images are.
        containers: Outermost and nested.
        images: In the order of `provisioner images`.
        unused_layers_bytes: Layers of no image, which the next prune removes.
        staging_bytes: Pulls under way.
        partial_bytes: Beginnings of large blobs, kept for a pull that goes on.
        trash_bytes: What waits for its deletion.
        disk_bytes: All of the above, shared layers once.
        unreadable: Directories that could not be entered; what is in them is missing everywhere above.
    """

    node: str
    work_dir: str
    store_dir: str
    containers: tuple[ContainerUsage, ...]
    images: tuple[ImageUsage, ...]
    unused_layers_bytes: int
    staging_bytes: int
    partial_bytes: int
    trash_bytes: int
    disk_bytes: int
    unreadable: int

    def to_document(self) -> dict[str, Any]:
        """Return the JSON object for `provisioner du`."""
        return asdict(self)


def measure_node(settings: Settings) -> NodeUsage:
    """Measure this machine's work and store directories.

    Cost: one system call or two for each file in them.

    Raises:
        InvalidArgument: One of them is not there, or this user may not read it.
    """
    meter = DiskMeter()
    work, store = WorkPaths(settings.work_dir.resolve()), StorePaths(settings.store_dir.resolve())
    containers = measure_containers(work, meter)
    views = read_store(store.store_dir).images
    layers = _measure_layers(store, meter)
    images = _measure_images(store, views, layers, meter)
    others = {
        "staging_bytes": _measure_in(store.staging_dir, meter),
        "partial_bytes": _measure_in(store.partial_dir, meter),
        "trash_bytes": _measure_in(store.trash_dir, meter) + _measure_in(work.trash_dir, meter),
    }
    used = {layer for view in views for layer in view.layers}
    parts = (*(each.disk_bytes for each in containers), *(each.own_bytes for each in images), *layers.values())
    return NodeUsage(
        node=settings.node,
        work_dir=str(work.work_dir),
        store_dir=str(store.store_dir),
        containers=containers,
        images=images,
        unused_layers_bytes=sum(size for layer, size in layers.items() if layer not in used),
        **others,
        disk_bytes=sum(parts) + sum(others.values()),
        unreadable=meter.unreadable,
    )


def measure_containers(
    work: WorkPaths, meter: DiskMeter, *, only: ContainerId | None = None
) -> tuple[ContainerUsage, ...]:
    """Measure the containers of a work directory, parents before children; or `only` one and those nested in it.

    Raises:
        InvalidArgument: It is not there, or this user may not read it.
    """
    try:
        if not work.containers_dir.is_dir():
            raise _unusable(work, "no worker has been here")
        found = sorted(containers_on_disk(work), key=lambda container_id: container_id.parts)
    except PermissionError as error:
        raise _unusable(work, "only the user who runs the worker may read it") from error
    wanted = () if only is None else only.parts
    return tuple(_container(work, each, meter) for each in found if each.parts[: len(wanted)] == wanted)


def _unusable(work: WorkPaths, reason: str) -> InvalidArgument:
    return InvalidArgument(argument="PROVISIONER_WORK_DIR", value=str(work.work_dir), reason=reason)


def _container(work: WorkPaths, container_id: ContainerId, meter: DiskMeter) -> ContainerUsage:
    error, infos = "", dict[str, ProvisionInfo]()
    try:
        record = read_record(work.record_path(container_id.parts))
        infos = {name: entry.info for name, entry in record.rootfses.items()}
    except RecordCorrupt as corrupt:
        error = str(corrupt)
    names = {path.name for path in _children(work.rootfses_dir(container_id.parts))} | set(infos)
    rootfses = tuple(
        _rootfs(work.rootfs_paths(container_id.parts, name=name).rootfs_home, infos.get(name), meter)
        for name in sorted(names)
    )
    return ContainerUsage(
        container_id=str(container_id),
        disk_bytes=sum(rootfs.disk_bytes for rootfs in rootfses),
        rootfses=rootfses,
        error=error,
    )


def _rootfs(rootfs_home: Path, info: ProvisionInfo | None, meter: DiskMeter) -> RootfsUsage:
    """Measure what lies in a rootfs's home part by part; the rootfs itself is mounted there, unless it is a copy."""
    parts = {str(path): meter.measure(path) for path in _children(rootfs_home) if not is_mount_point(path)}
    volumes = () if info is None else info.ephemeral_volumes
    return RootfsUsage(
        name=rootfs_home.name,
        image="" if info is None else info.image,
        backend="" if info is None else info.backend,
        disk_bytes=sum(parts.values()),
        ephemeral_volumes=tuple(
            VolumeUsage(path=path, disk_bytes=parts.get(str(Path(path).resolve()), 0)) for path in volumes
        ),
    )


def _measure_in(directory: Path, meter: DiskMeter) -> int:
    """Measure what lies in a directory, without the directory: an empty one is nothing to tell of."""
    return sum(meter.measure(path) for path in _children(directory))


def _children(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _measure_layers(store: StorePaths, meter: DiskMeter) -> Mapping[str, int]:
    """Measure what each layer takes, in all formats, by DiffID."""
    sizes: Counter[str] = Counter()
    for layer_format, diff_id in Layers(store).committed():
        sizes[str(diff_id)] += meter.measure(store.layer_dir(str(diff_id), layer_format=layer_format.value))
    return sizes


def _measure_images(
    store: StorePaths, views: Sequence[StoredImageView], layers: Mapping[str, int], meter: DiskMeter
) -> tuple[ImageUsage, ...]:
    users = Counter(layer for view in views for layer in set(view.layers))
    return tuple(_image(view, layers, users, own_bytes=meter.measure(store.image_dir(view.digest))) for view in views)


def _image(view: StoredImageView, sizes: Mapping[str, int], users: Mapping[str, int], *, own_bytes: int) -> ImageUsage:
    layers = tuple(
        LayerUsage(diff_id=layer, disk_bytes=sizes.get(layer, 0), images=users[layer])
        for layer in dict.fromkeys(view.layers)
    )
    shared_bytes = sum(layer.disk_bytes for layer in layers if layer.images > 1)
    disk_bytes = own_bytes + sum(layer.disk_bytes for layer in layers)
    return ImageUsage(
        digest=view.digest,
        references=tuple(each.reference for each in view.references),
        disk_bytes=disk_bytes,
        exclusive_bytes=disk_bytes - shared_bytes,
        shared_bytes=shared_bytes,
        own_bytes=own_bytes,
        layers=layers,
    )
