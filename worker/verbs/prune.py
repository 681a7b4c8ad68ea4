# SPDX-License-Identifier: Apache-2.0
"""prune: free what nothing uses. The exclusive section is a look at the refs and renames."""

import time
from collections.abc import Collection
from dataclasses import dataclass

from worker.linux.flock import locked
from worker.oci.digest import Digest
from worker.requests import PruneRequest
from worker.store.prune import PrunePlan, execute, layer_bytes, plan_prune, survey
from worker.store.trash import empty_trash
from worker.verbs.node import Elsewhere, Node


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePruned:
    """What one store lost, or would lose in a dry run.

    Attributes:
        store: Its identity.
        node: Which node pruned it.
        images: Digests of the images removed.
        layers: DiffIDs of the layers removed.
        bytes_freed: On disk.
        exclusive_ms: How long others were kept waiting; 0 in a dry run.
    """

    store: str
    node: str
    images: tuple[str, ...]
    layers: tuple[str, ...]
    bytes_freed: int
    exclusive_ms: float


def prune(node: Node, request: PruneRequest) -> StorePruned | Elsewhere:
    """Remove every image that no container needs and that is not excluded, and every layer of no image that stays.

    Effect: on return the files are deleted and their space is free. Killed anywhere, the next prune goes on.
    Locking: waits until `recover` has finished on this node; takes the exclusive lock for the renames.
    """
    if request.node not in (None, node.name):
        return Elsewhere(node=str(request.node))
    references, digests = request.excluded_references, request.excluded_digests
    with locked(node.work.node_lock_path, exclusive=False):
        known: dict[Digest, Collection[Digest] | None] = {}
        plan = plan_prune(survey(node.store, known=known), excluded_references=references, excluded_digests=digests)
        if request.dry_run:
            return _report(node, plan, layer_bytes(node.store, plan), 0.0)
        with node.exclusive() as lease:
            started = time.monotonic()
            plan = plan_prune(survey(node.store, known=known), excluded_references=references, excluded_digests=digests)
            lease.check()
            execute(node.store, plan)
            exclusive_ms = (time.monotonic() - started) * 1000
        freed = empty_trash(node.store.paths.trash_dir)
    return _report(node, plan, freed, exclusive_ms)


def _report(node: Node, plan: PrunePlan, bytes_freed: int, exclusive_ms: float) -> StorePruned:
    return StorePruned(
        store=node.store.identity,
        node=node.name,
        images=tuple(sorted(str(digest) for digest in plan.images)),
        layers=tuple(sorted({str(diff_id) for _, diff_id in plan.layers})),
        bytes_freed=bytes_freed,
        exclusive_ms=round(exclusive_ms, 3),
    )
