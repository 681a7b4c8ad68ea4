# SPDX-License-Identifier: Apache-2.0
"""Containers of this node that are being provisioned or destroyed, but by nobody any more.

Their task is gone: revoked by a worker that was killed before it could undo it, purged, laid aside, or it gave up
while Redis was away. Who works on a container gives a sign of it there; where the last one is long past, the verb is
asked for again, as every task may be. It finishes what was begun, or fails and undoes it. That may come late, behind
the task after all: what it finds then is done, or another container of the same id, and left alone.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from worker.containers import Containers, ContainerState, ContainerView
from worker.errors import ContainerDestroying
from worker.requests import DestroyRequest, ProvisionRequest
from worker.verbs.destroy import destroy
from worker.verbs.node import Elsewhere, Node, OnProgress
from worker.verbs.provision import provision


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """Work that somebody has to take up again.

    Attributes:
        verb: "provision" or "destroy".
        keywords: What to ask it.
        generation: Of the container.
    """

    verb: str
    keywords: dict[str, Any]
    generation: str


def claim_orphans(containers: Containers, *, node: str, quiet_seconds: float) -> list[Orphan]:
    """Claim what nobody has given a sign of work on for this long; who asks next gets it no sooner than that again.

    Cost: proportional to the containers of the cluster that have been in transition for so long.
    """
    orphans: list[Orphan] = []
    for view in _long_in(containers, node, ContainerState.PROVISIONING, quiet_seconds):
        if containers.claim(view.container_id, generation=view.generation, quiet_seconds=quiet_seconds):
            requests = (json.loads(text) for text in view.requests.values())
            orphans += [Orphan(verb="provision", keywords=each, generation=view.generation) for each in requests]
    doomed = {view.container_id: view for view in _long_in(containers, node, ContainerState.DESTROYING, quiet_seconds)}
    for container_id, view in doomed.items():
        # The outermost takes the others with it.
        if doomed.keys().isdisjoint(container_id.ancestors) and containers.claim(
            container_id, generation=view.generation, quiet_seconds=quiet_seconds
        ):
            keywords = {"container_id": str(container_id)}
            orphans.append(Orphan(verb="destroy", keywords=keywords, generation=view.generation))
    return orphans


def take_up(node: Node, orphan: Orphan, *, on_progress: OnProgress) -> Elsewhere | None:
    """Do what nobody works on, if that is still so.

    Raises: what the verb does.
    """
    if orphan.verb == "destroy":
        answer = destroy(node, DestroyRequest.parse(orphan.keywords), generation=orphan.generation)
        return answer if isinstance(answer, Elsewhere) else None
    try:
        request = ProvisionRequest.parse(orphan.keywords)
        info = provision(node, request, on_progress=on_progress, only=orphan.generation)
    except ContainerDestroying:
        return None
    return info if isinstance(info, Elsewhere) else None


def _long_in(containers: Containers, node: str, state: ContainerState, seconds: float) -> Iterator[ContainerView]:
    """Yield a node's containers that came into the state so long ago, the longest first."""
    before_ms = containers.now_ms() - round(seconds * 1000)
    for view in containers.list(state=state):
        if view.changed_ms > before_ms:
            return
        if view.node == node:
            yield view
