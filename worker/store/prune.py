# SPDX-License-Identifier: Apache-2.0
"""Prune: survey, plan (pure), execute as renames.

Refs on disk are the truth. The exclusive section is the survey of refs and the renames; manifests are read before it
and never change under their digest, sizes are read and files deleted after it.
"""

from collections.abc import Collection, Mapping, MutableMapping
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
        references: For each file below `references/`, the reference and the digest it resolved to.
        layers: All committed layers.
    """

    images: Mapping[Digest, Collection[Digest] | None]
    used: Collection[Digest]
    references: Mapping[Path, tuple[str, Digest]]
    layers: Collection[Layer]


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
        references={path: (ref.reference, ref.digest) for path, ref in store.images.references()},
        layers=tuple(store.layers.committed()),
    )


def plan_prune(
    found: Survey, *, excluded_references: Collection[str], excluded_digests: Collection[Digest]
) -> PrunePlan:
    """Decide what goes: images neither referenced nor excluded, and layers of no image that stays.

    While an image that stays cannot be read, nobody knows which layers its containers stand on: no layer goes.
    """
    excluded = {digest for reference, digest in found.references.values() if reference in excluded_references}
    kept = (set(found.used) | excluded | set(excluded_digests)) & set(found.images)
    is_readable = all(found.images[digest] is not None for digest in kept)
    kept_layers = {layer for digest in kept for layer in found.images[digest] or ()}
    return PrunePlan(
        references=tuple(path for path, (_, digest) in found.references.items() if digest not in kept),
        images=tuple(digest for digest in found.images if digest not in kept),
        layers=tuple(layer for layer in found.layers if is_readable and layer[1] not in kept_layers),
    )


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


def _bytes_of(store: Store, layer: Layer) -> int:
    layer_format, diff_id = layer
    try:
        return store.layers.record(diff_id, layer_format=layer_format).disk_bytes
    except (LayerVanished, RecordCorrupt):
        return 0
