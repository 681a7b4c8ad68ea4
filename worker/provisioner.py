# SPDX-License-Identifier: Apache-2.0
"""`Provisioner`: the verbs of one node behind one face, in the wire contract's terms.

Every method takes the keywords of the task of the same name and gives its JSON answer, or `Elsewhere` when the request
belongs to another node. It knows neither Celery nor queues.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from worker.records import ProvisionInfo
from worker.requests import (
    DestroyRequest,
    ProvisionRequest,
    PruneRequest,
    PullRequest,
    RecoverRequest,
    VerifyRequest,
)
from worker.verbs.destroy import destroy
from worker.verbs.node import Elsewhere, Node, OnProgress, Progress
from worker.verbs.provision import provision
from worker.verbs.prune import prune
from worker.verbs.pull import pull
from worker.verbs.recover import recover
from worker.verbs.undo import abandon
from worker.verbs.verify import verify

__all__ = ["Elsewhere", "Progress", "ProvisionInfo", "Provisioner"]

Document = dict[str, Any]
Keywords = Mapping[str, Any]


def _silent(_: Progress) -> None:
    """Nobody watches."""


class Provisioner:
    """Provision, destroy, pull, prune, recover and verify on one node."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def provision(self, keywords: Keywords, *, on_progress: OnProgress = _silent) -> Document | Elsewhere:
        """See `worker.verbs.provision`."""
        answer = provision(self.node, ProvisionRequest.parse(keywords), on_progress=on_progress)
        return answer if isinstance(answer, Elsewhere) else answer.to_document()

    def destroy(self, keywords: Keywords) -> bool | Elsewhere:
        """See `worker.verbs.destroy`."""
        return destroy(self.node, DestroyRequest.parse(keywords))

    def pull(self, keywords: Keywords, *, on_progress: OnProgress = _silent) -> Document | Elsewhere:
        """See `worker.verbs.pull`."""
        answer = pull(self.node, PullRequest.parse(keywords), on_progress=on_progress)
        return answer if isinstance(answer, Elsewhere) else asdict(answer) | {"layers": list(answer.layers)}

    def prune(self, keywords: Keywords) -> Document | Elsewhere:
        """See `worker.verbs.prune`; the answer is one entry of `stores`."""
        answer = prune(self.node, PruneRequest.parse(keywords))
        if isinstance(answer, Elsewhere):
            return answer
        return asdict(answer) | {"images": list(answer.images), "layers": list(answer.layers)}

    def recover(self, keywords: Keywords, *, is_start: bool = False) -> Document | Elsewhere:
        """See `worker.verbs.recover`; the answer is one entry of `nodes`."""
        answer = recover(self.node, RecoverRequest.parse(keywords), is_start=is_start)
        return answer if isinstance(answer, Elsewhere) else asdict(answer)

    def verify(self, keywords: Keywords, *, on_progress: OnProgress = _silent) -> Document | Elsewhere:
        """See `worker.verbs.verify`; the answer is one entry of `stores`."""
        answer = verify(self.node, VerifyRequest.parse(keywords), on_progress=on_progress)
        if isinstance(answer, Elsewhere):
            return answer
        return asdict(answer) | {
            key: [asdict(each) for each in getattr(answer, key)] for key in ("problems", "repaired")
        }

    def note_failure(self, keywords: Keywords, *, error: str, retry_in_seconds: float) -> None:
        """Show in the container's state that a provision failed and will be tried again."""
        request = ProvisionRequest.parse(keywords)
        view = self.node.containers.get(request.container_id)
        if view is not None and request.name in view.pending:
            self.node.containers.note_failure(
                request.container_id, generation=view.generation, error=error, retry_in_seconds=retry_in_seconds
            )

    def give_up(self, keywords: Keywords) -> None:
        """Undo a provision that will not be tried again."""
        request = ProvisionRequest.parse(keywords)
        view = self.node.containers.get(request.container_id)
        is_ours = view is not None and view.pending.get(request.name) == request.image.normalised
        generation = view.generation if view is not None and is_ours else None
        abandon(self.node, request, generation=generation)
