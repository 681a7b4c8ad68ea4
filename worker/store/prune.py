# SPDX-License-Identifier: Apache-2.0
"""Prune: survey, plan (pure), recheck, execute as renames.

Refs on disk are the truth. All that takes time lies outside the exclusive section: before it the survey of everything
and the plan, after it what readers can live with, the deletion of files. Inside, only what can have changed since the
survey is looked at again, and spared if it did: the refs of images that are to go, and images that came.
"""

import math
import os
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from worker.errors import InvalidArgument, LayerVanished, RecordCorrupt
from worker.image import LayerFormat
from worker.linux import durable
from worker.oci.digest import Digest
from worker.store.images import Images
from worker.store.resolved import read_reference
from worker.store.store import Store

Layer = tuple[LayerFormat, Digest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a store holds at one moment.

    Attributes:
        images: Each image's layers; None for an image that cannot be read.
        used: Images with at least one ref.
        used_at: When an image last got or lost a ref, in seconds since 1970.
        references: For each file below `references/`, the reference and the digest it resolved to.
        layers: All committed layers.
    """

    images: Mapping[Digest, Collection[Digest] | None]
    used: Collection[Digest]
    used_at: Mapping[Digest, float]
    references: Mapping[Path, tuple[str, Digest]]
    layers: Collection[Layer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What may go; by default all that nothing needs.

    Attributes:
        excluded_references: Normalised; their images stay.
        excluded_digests: These images stay.
        unused_since: Only images that last had a ref before this time go, in seconds since 1970.
        bytes_wanted: Stop, the longest unused going first, once so much is freed; None to free all.
    """

    excluded_references: Collection[str] = ()
    excluded_digests: Collection[Digest] = ()
    unused_since: float = math.inf
    bytes_wanted: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """What goes. Order of execution: images, layers, references, so that a crash in between leaves only surplus."""

    references: tuple[Path, ...] = ()
    images: tuple[Digest, ...] = ()
    layers: tuple[Layer, ...] = field(default=())


def survey(store: Store) -> Survey:
    """Look at the store.

    Cost: one directory listing and one manifest per image, one small file per reference.
    Locking: none. What is there all the time is seen; of what comes or goes meanwhile anything.
    """
    images_dir = str(store.paths.images_dir)
    digests = tuple(store.images.digests())
    return Survey(
        images={digest: _layers_of(store.images, digest) for digest in digests},
        used_at={digest: _used_at(images_dir, digest) for digest in digests},
        used={digest for digest in digests if _is_used(images_dir, digest)},
        references={path: (ref.reference, ref.digest) for path, ref in store.images.references()},
        layers=tuple(store.layers.committed()),
    )


def plan_prune(found: Survey, policy: Policy, *, sizes: Mapping[Digest, int] | None = None) -> PrunePlan:
    """Decide what goes: images that nothing needs, as far as the policy lets them, and layers of no image that stays.

    While an image that stays cannot be read, nobody knows which layers its containers stand on: no layer goes.

    Args:
        sizes: What each layer takes on disk, in bytes; needed where the policy wants so many bytes.
    """
    images = _images_to_go(found, policy, sizes or {})
    stays = set(found.images) - set(images)
    is_readable = all(found.images[digest] is not None for digest in stays)
    kept_layers = _layers_in(found, stays)
    return PrunePlan(
        references=tuple(path for path, (_, digest) in found.references.items() if digest not in stays),
        images=images,
        layers=tuple(layer for layer in found.layers if is_readable and layer[1] not in kept_layers),
    )


def _images_to_go(found: Survey, policy: Policy, sizes: Mapping[Digest, int]) -> tuple[Digest, ...]:
    """Choose images, the longest unused first."""
    named = {digest for reference, digest in found.references.values() if reference in policy.excluded_references}
    kept = {*found.used, *named, *policy.excluded_digests}
    free = [digest for digest in found.images if digest not in kept and found.used_at[digest] < policy.unused_since]
    free.sort(key=lambda digest: (found.used_at[digest], digest))
    if policy.bytes_wanted is None:
        return tuple(free)
    return tuple(free[: _count_for(policy.bytes_wanted, found, free, sizes)])


def _count_for(bytes_wanted: int, found: Survey, free: Sequence[Digest], sizes: Mapping[Digest, int]) -> int:
    """Count how many images, in this order, must go to free so many bytes; shared layers go with their last image."""
    users = Counter(layer for layers in found.images.values() for layer in layers or ())
    freed = sum(sizes.get(diff_id, 0) for _, diff_id in found.layers if not users[diff_id])
    for count, digest in enumerate(free):
        if freed >= bytes_wanted:
            return count
        for layer in found.images[digest] or ():
            users[layer] -= 1
            freed += 0 if users[layer] else sizes.get(layer, 0)
    return len(free)


def _layers_in(found: Survey, digests: Collection[Digest]) -> set[Digest]:
    return {layer for digest in digests for layer in found.images[digest] or ()}


def layer_sizes(store: Store) -> dict[Digest, int]:
    """Return what each layer takes on disk, in all its formats, in bytes. Cost: one small file per layer."""
    sizes: Counter[Digest] = Counter()
    for layer in store.layers.committed():
        sizes[layer[1]] += _bytes_of(store, layer)
    return dict(sizes)


def layer_bytes(store: Store, plan: PrunePlan) -> int:
    """Add up what the plan's layers take on disk, in bytes. Cost: one small file per layer."""
    return sum(_bytes_of(store, layer) for layer in plan.layers)


def recheck(store: Store, found: Survey, plan: PrunePlan) -> PrunePlan:
    """Take out of the plan what came into use since the survey.

    Cost: one listing of the images, some 10 µs per image that is to go, one manifest per image that came.
    Locking: the caller holds the cluster lock and the fence exclusively, so that nothing comes into use any more.
    """
    images_dir, seen = str(store.paths.images_dir), set(map(str, found.images))
    came = [name for name in os.listdir(images_dir) if name not in seen]  # noqa: PTH208 - names, quickly
    used = [digest for digest in plan.images if _was_touched(images_dir, digest, used_at=found.used_at[digest])]
    needed = [*(found.images[digest] for digest in used), *(_layers_of_name(store.images, name) for name in came)]
    return spare(plan, images=used, needed=needed)


def spare(plan: PrunePlan, *, images: Collection[Digest], needed: Collection[Collection[Digest] | None]) -> PrunePlan:
    """Leave out images, and the layers that are needed; all layers if one of those who need some cannot be read."""
    if not images and not needed:
        return plan
    kept = {layer for layers in needed for layer in layers or ()}
    spared = set(images)
    return replace(
        plan,
        images=tuple(digest for digest in plan.images if digest not in spared),
        layers=() if None in needed else tuple(layer for layer in plan.layers if layer[1] not in kept),
    )


def execute(store: Store, plan: PrunePlan, *, check: Callable[[], None]) -> None:
    """Move the plan's images and layers out of sight.

    Args:
        check: Called before each rename; what it raises leaves the rest where it is.

    Effect: renames only; safe to be killed or stopped anywhere, the next prune goes on.
    Locking: the caller holds the cluster lock and the fence exclusively, since before the recheck.
    """
    # Strings, because `pathlib` would take as long again as the kernel.
    images_dir, layers_dir = str(store.paths.images_dir), str(store.paths.layers_dir)
    trash_dir, token = str(store.paths.trash_dir), uuid.uuid4().hex
    for digest in plan.images:
        check()
        _move(f"{images_dir}/{digest}", f"{trash_dir}/image-{digest.hex}.{token}")
    for layer_format, diff_id in plan.layers:
        check()
        _move(f"{layers_dir}/{layer_format}/{diff_id}", f"{trash_dir}/{layer_format}-{diff_id.hex}.{token}")


def make_durable(store: Store) -> None:
    """Let the renames survive power loss, before what they moved is deleted: else it could come back in part."""
    for directory in (store.paths.images_dir, *store.paths.layers_dir.iterdir(), store.paths.trash_dir):
        durable.sync_directory(directory)


def forget_references(store: Store, plan: PrunePlan) -> None:
    """Delete references whose image went.

    Effect: one that leads nowhere is as good as none, so this needs no lock. One that leads to an image that came back
        in this very moment may go too: its source is asked once more.
    """
    for path in plan.references:
        with suppress(RecordCorrupt, FileNotFoundError):
            if not store.paths.image_dir(str(read_reference(path).digest)).exists():
                path.unlink()
    if plan.references:
        # `verify` would show one that came back.
        durable.sync_directory(store.paths.references_dir)


def _move(source: str, target: str) -> None:
    with suppress(FileNotFoundError):
        os.rename(source, target)  # noqa: PTH104 - quickly


def _layers_of_name(images: Images, name: str) -> Collection[Digest] | None:
    try:
        return _layers_of(images, Digest.parse(name))
    except InvalidArgument:
        return ()


def _layers_of(images: Images, digest: Digest) -> Collection[Digest] | None:
    try:
        image = images.get(digest)
    except RecordCorrupt:
        return None
    return frozenset(image.layers) if image is not None else None


def _was_touched(images_dir: str, digest: Digest, *, used_at: float) -> bool:
    """Tell whether the image has a ref or, as far as the filesystem's clock can tell, had one since it was surveyed."""
    return _used_at(images_dir, digest) != used_at or _is_used(images_dir, digest)


def _is_used(images_dir: str, digest: Digest) -> bool:
    try:
        with os.scandir(f"{images_dir}/{digest}/refs") as entries:
            return next(entries, None) is not None
    except FileNotFoundError:
        return False


def _used_at(images_dir: str, digest: Digest) -> float:
    """Refs come and go in their directory, whose time of change says when the last one did."""
    try:
        return os.stat(f"{images_dir}/{digest}/refs").st_mtime  # noqa: PTH116 - quickly
    except FileNotFoundError:
        return 0.0


def _bytes_of(store: Store, layer: Layer) -> int:
    layer_format, diff_id = layer
    try:
        return store.layers.record(diff_id, layer_format=layer_format).disk_bytes
    except (LayerVanished, RecordCorrupt):
        return 0
