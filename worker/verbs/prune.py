# SPDX-License-Identifier: Apache-2.0
"""prune: free what nothing uses. The exclusive section is a look at the refs and renames."""

import math
import os
import time
from dataclasses import dataclass

from worker.linux.flock import locked
from worker.requests import PruneRequest
from worker.store.prune import (
    Policy,
    PrunePlan,
    execute,
    forget_references,
    layer_bytes,
    layer_sizes,
    make_durable,
    plan_prune,
    recheck,
    survey,
)
from worker.store.staging import sweep_staging
from worker.store.trash import empty_trash
from worker.verbs.node import Elsewhere, Node
from worker.verbs.undo import drop_stale_refs


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePruned:
    """What one store lost, or would lose in a dry run.

    Attributes:
        store: Its identity.
        node: Which node pruned it.
        images: Digests of the images removed.
        layers: DiffIDs of the layers removed.
        bytes_freed: On disk.
        exclusive_ms: How long others were kept waiting, from the grant of the exclusive lock to its release, a wait for
            the fence included; 0 in a dry run.
    """

    store: str
    node: str
    images: tuple[str, ...]
    layers: tuple[str, ...]
    bytes_freed: int
    exclusive_ms: float


def prune(node: Node, request: PruneRequest) -> StorePruned | Elsewhere:
    """Remove images that no container needs and that are not excluded, and every layer of no image that stays.

    All such images; or only those unused for `unused_seconds`; or, the longest unused first, only until so much of the
    store's filesystem is free (`free_bytes`, `free_percent`), and none if it is.

    What dead workers left goes as well, and keeps nothing.

    Effect: on return the files are deleted and their space is free. Killed anywhere, or its lease lost between two
        renames, the next prune goes on.
    Locking: waits until a `recover` under way on this node has finished; takes the exclusive lock for the renames.
    """
    if request.node not in (None, node.name):
        return Elsewhere(node=str(request.node))
    policy = _policy(node, request)
    with locked(node.work.node_lock_path, exclusive=False):
        if policy.bytes_wanted is not None and policy.bytes_wanted <= 0:
            return _report(node, PrunePlan(), 0, 0.0)
        if not request.dry_run:
            sweep_staging(node.store.paths.staging_dir)
            drop_stale_refs(node)
        sizes = {} if policy.bytes_wanted is None else layer_sizes(node.store)
        found = survey(node.store)
        plan = plan_prune(found, policy, sizes=sizes)
        if request.dry_run:
            return _report(node, plan, layer_bytes(node.store, plan), 0.0)
        with node.exclusive() as lease:
            plan = recheck(node.store, found, plan)
            execute(node.store, plan, check=lease.check)
        exclusive_ms = lease.age_seconds * 1000
        make_durable(node.store)
        forget_references(node.store, plan)
        freed = empty_trash(node.store.paths.trash_dir)
        freed += node.store.partials.sweep(unused_seconds=node.settings.resume_keep_seconds)
    return _report(node, plan, freed, exclusive_ms)


def _policy(node: Node, request: PruneRequest) -> Policy:
    return Policy(
        excluded_references=request.excluded_references,
        excluded_digests=request.excluded_digests,
        unused_since=math.inf if request.unused_seconds == 0 else time.time() - request.unused_seconds,
        bytes_wanted=_bytes_wanted(node, request),
    )


def _bytes_wanted(node: Node, request: PruneRequest) -> int | None:
    """Return how much is missing to what shall be free on the store's filesystem, negative if that is free already."""
    if request.free_bytes is None and request.free_percent is None:
        return None
    statistics = os.statvfs(node.store.paths.store_dir)
    total, free = statistics.f_blocks * statistics.f_frsize, statistics.f_bavail * statistics.f_frsize
    return max(request.free_bytes or 0, math.ceil(total * (request.free_percent or 0) / 100)) - free


def _report(node: Node, plan: PrunePlan, bytes_freed: int, exclusive_ms: float) -> StorePruned:
    return StorePruned(
        store=node.store.identity,
        node=node.name,
        images=tuple(sorted(str(digest) for digest in plan.images)),
        layers=tuple(sorted({str(diff_id) for _, diff_id in plan.layers})),
        bytes_freed=bytes_freed,
        exclusive_ms=round(exclusive_ms, 3),
    )
