# SPDX-License-Identifier: Apache-2.0
"""From an image's committed layers to the lower directories a backend stacks."""

from collections.abc import Sequence
from pathlib import Path

from worker.image import LayerFormat, LayerRecord, LowerDir
from worker.linux import durable
from worker.oci.digest import Digest
from worker.store.implied import LayerTree, make_overrides, plan_overrides
from worker.store.staging import staging
from worker.store.store import Store

TREE = "tree"


def lower_dirs(
    store: Store, digest: Digest, diff_ids: Sequence[Digest], *, layer_format: LayerFormat
) -> tuple[LowerDir, ...]:
    """Return the directories to stack, base first.

    Locking: the caller holds the shared fence and the image's ref.
    Cost: one small file per layer; the first time for an image also a look at its unlisted directories.

    Raises:
        LayerVanished: A layer is not there.
    """
    stack = store.layers.stack(diff_ids, layer_format=layer_format)
    layers = [LowerDir(path=path / TREE, has_whiteouts=record.has_whiteouts) for path, record in stack]
    if layer_format is LayerFormat.DIRECTORY and len(stack) > 1:
        layers += _implied(store, digest, stack, layer_format=layer_format)
    return tuple(layers)


def _implied(
    store: Store, digest: Digest, stack: Sequence[tuple[Path, LayerRecord]], *, layer_format: LayerFormat
) -> list[LowerDir]:
    """Return the directory that puts unlisted directories right, if the image needs one; made once per image."""
    implied_dir = store.paths.implied_dir(str(digest), layer_format=layer_format.value)
    if not implied_dir.exists():
        with staging(store.paths.staging_dir / f"implied-{digest.hex[:64]}-{layer_format}") as staging_dir:
            overrides = plan_overrides([LayerTree.of(path / TREE, record) for path, record in stack])
            if overrides:
                (staging_dir / TREE).mkdir(mode=0o755)
                make_overrides(overrides, staging_dir / TREE)
            durable.sync_filesystem(staging_dir)
            if not implied_dir.exists():
                durable.rename(staging_dir, implied_dir)
    return [LowerDir(path=implied_dir / TREE)] if (implied_dir / TREE).exists() else []
