# SPDX-License-Identifier: Apache-2.0
"""Prune: survey, plan (pure), execute as renames.

Refs on disk are the truth. The exclusive section is the survey of refs and the renames; manifests are read before it
and never change under their digest, sizes are read and files deleted after it.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worker.errors import LayerVanished, RecordCorrupt
from worker.image import LayerFormat
from worker.oci.digest import Digest
from worker.store.images import Images
from worker.store.store import Store
from worker.store.trash import discard

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
    """What goes. Order of execution: references, images, layers, so that a crash in between leaves only surplus."""

    references: tuple[Path, ...] = ()
    images: tuple[Digest, ...] = ()
    layers: tuple[Layer, ...] = field(default=())


def survey(store: Store, *, known: MutableMapping[Digest, Collection[Digest] | None]) -> Survey:
    """Look at the store. `known` caches images' layers between surveys and is filled here.

    Cost: one directory listing per image, one manifest per image not yet in `known`.
    """
    digests = tuple(store.images.digests())
    for digest in digests:
        if digest not in known:
            known[digest] = _layers_of(store.images, digest)
    return Survey(
        images={digest: known[digest] for digest in digests},
        used={digest for digest in digests if _is_used(store, digest)},
        used_at={digest: _used_at(store, digest) for digest in digests},
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


def execute(store: Store, plan: PrunePlan) -> None:
    """Move everything of the plan out of sight.

    Effect: renames only; safe to be killed anywhere, the next prune goes on.
    Locking: the caller holds the cluster lock and the fence exclusively, since before the survey.
    """
    for path in plan.references:
        path.unlink(missing_ok=True)
    for digest in plan.images:
        discard(store.paths.image_dir(str(digest)), store.paths.trash_dir)
    for layer_format, diff_id in plan.layers:
        discard(store.paths.layer_dir(str(diff_id), layer_format=layer_format.value), store.paths.trash_dir)


def _layers_of(images: Images, digest: Digest) -> Collection[Digest] | None:
    try:
        image = images.get(digest)
    except RecordCorrupt:
        return None
    return frozenset(image.layers) if image is not None else None


def _is_used(store: Store, digest: Digest) -> bool:
    try:
        return next(store.paths.refs_dir(str(digest)).iterdir(), None) is not None
    except FileNotFoundError:
        return False


def _used_at(store: Store, digest: Digest) -> float:
    """Refs come and go in their directory, whose time of change says when the last one did."""
    try:
        return store.paths.refs_dir(str(digest)).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _bytes_of(store: Store, layer: Layer) -> int:
    layer_format, diff_id = layer
    try:
        return store.layers.record(diff_id, layer_format=layer_format).disk_bytes
    except (LayerVanished, RecordCorrupt):
        return 0
