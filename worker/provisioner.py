# SPDX-License-Identifier: Apache-2.0
"""`Provisioner`: the verbs of one node behind one face, in the wire contract's terms.

Every method takes the keywords of the task of the same name and gives its JSON answer, or `Elsewhere` when the request
belongs to another node. It knows neither Celery nor queues.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from worker.container_view import ContainerState
from worker.observer import Metric, Observation, Outcome, Verb
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
from worker.verbs.home import check_nameable
from worker.verbs.node import Elsewhere, Node, OnProgress, Progress
from worker.verbs.observed import observed_verb
from worker.verbs.orphans import Orphan, take_up
from worker.verbs.provision import provision
from worker.verbs.prune import StorePruned, prune
from worker.verbs.pull import pull
from worker.verbs.recover import recover
from worker.verbs.undo import abandon, take_back
from worker.verbs.verify import verify

__all__ = ["Elsewhere", "Progress", "ProvisionInfo", "Provisioner"]

Document = dict[str, Any]
Keywords = Mapping[str, Any]
Answer = TypeVar("Answer")
Request = TypeVar("Request", ProvisionRequest, DestroyRequest, PullRequest, PruneRequest, RecoverRequest, VerifyRequest)
ContainerRequest = TypeVar("ContainerRequest", ProvisionRequest, DestroyRequest)


def _silent(_: Progress) -> None:
    """Nobody watches."""


class Provisioner:
    """Provision, destroy, pull, prune, recover and verify on one node."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def provision(self, keywords: Keywords, *, on_progress: OnProgress = _silent) -> Document | Elsewhere:
        """See `worker.verbs.provision`."""
        lookup = _Lookup(on_progress)
        answer = self._observed(
            Verb.PROVISION,
            lambda: provision(self.node, self._nameable(self._parse(ProvisionRequest, keywords)), on_progress=lookup),
        )
        self._observe_lookup(lookup, answer)
        return answer if isinstance(answer, Elsewhere) else answer.to_document()

    def destroy(self, keywords: Keywords) -> bool | Elsewhere:
        """See `worker.verbs.destroy`."""
        return self._observed(
            Verb.DESTROY, lambda: destroy(self.node, self._nameable(self._parse(DestroyRequest, keywords)))
        )

    def pull(self, keywords: Keywords, *, on_progress: OnProgress = _silent) -> Document | Elsewhere:
        """See `worker.verbs.pull`."""
        lookup = _Lookup(on_progress)
        answer = self._observed(
            Verb.PULL, lambda: pull(self.node, self._parse(PullRequest, keywords), on_progress=lookup)
        )
        self._observe_lookup(lookup, answer)
        return answer if isinstance(answer, Elsewhere) else asdict(answer) | {"layers": list(answer.layers)}

    def prune(self, keywords: Keywords) -> Document | Elsewhere:
        """See `worker.verbs.prune`; the answer is one entry of `stores`."""
        answer = self._observed(Verb.PRUNE, lambda: prune(self.node, self._parse(PruneRequest, keywords)))
        if isinstance(answer, Elsewhere):
            return answer
        self._observe_prune(answer)
        return asdict(answer) | {"images": list(answer.images), "layers": list(answer.layers)}

    def recover(self, keywords: Keywords, *, is_start: bool = False) -> Document | Elsewhere:
        """See `worker.verbs.recover`; the answer is one entry of `nodes`."""
        answer = self._observed(
            Verb.RECOVER, lambda: recover(self.node, self._parse(RecoverRequest, keywords), is_start=is_start)
        )
        return answer if isinstance(answer, Elsewhere) else asdict(answer)

    def verify(self, keywords: Keywords, *, on_progress: OnProgress = _silent) -> Document | Elsewhere:
        """See `worker.verbs.verify`; the answer is one entry of `stores`."""
        answer = self._observed(
            Verb.VERIFY, lambda: verify(self.node, self._parse(VerifyRequest, keywords), on_progress=on_progress)
        )
        if isinstance(answer, Elsewhere):
            return answer
        return asdict(answer) | {
            key: [asdict(each) for each in getattr(answer, key)] for key in ("problems", "repaired")
        }

    def take_up(self, orphan: Keywords, *, on_progress: OnProgress = _silent) -> Elsewhere | None:
        """See `worker.verbs.orphans`; the keywords are the fields of an `Orphan`."""
        return take_up(self.node, Orphan(**orphan), on_progress=on_progress)

    def note_provision_failure(self, keywords: Keywords, *, error: str, retry_in_seconds: float) -> None:
        """Show in the container's state that a provision failed and will be tried again."""
        request = self._parse(ProvisionRequest, keywords)
        view = self.node.containers.get(request.container_id)
        if view is not None and request.name in view.pending:
            self.node.containers.note_failure(
                request.container_id, generation=view.generation, error=error, retry_in_seconds=retry_in_seconds
            )

    def note_destroy_failure(self, keywords: Keywords, *, error: str, retry_in_seconds: float) -> None:
        """Show in the container's state that a destroy failed and will be tried again."""
        container_id = DestroyRequest.parse(keywords).container_id
        view = self.node.containers.get(container_id)
        if view is not None and view.state is ContainerState.DESTROYING:
            self.node.containers.note_failure(
                container_id, generation=view.generation, error=error, retry_in_seconds=retry_in_seconds
            )

    def take_back(self, keywords: Keywords) -> Elsewhere | None:
        """Undo a provision that its caller revoked; see `worker.verbs.undo`."""
        return take_back(self.node, self._parse(ProvisionRequest, keywords))

    def give_up(self, keywords: Keywords) -> None:
        """Undo a provision that will not be tried again."""
        request = self._parse(ProvisionRequest, keywords)
        view = self.node.containers.get(request.container_id)
        is_ours = view is not None and view.pending.get(request.name) == request.image.normalised
        generation = view.generation if view is not None and is_ours else None
        abandon(self.node, request, generation=generation)

    def _parse(self, kind: type[Request], keywords: Keywords) -> Request:
        return kind.parse(keywords, default_registry=self.node.settings.default_registry)

    def _nameable(self, request: ContainerRequest) -> ContainerRequest:
        check_nameable(self.node.work, request.container_id)
        return request

    def _observed(self, verb: Verb, act: Callable[[], Answer]) -> Answer:
        return observed_verb(self.node.observe, verb, act, outcome_of=_outcome)

    def _observe_lookup(self, lookup: "_Lookup", answer: object) -> None:
        if not isinstance(answer, Elsewhere):
            result = "miss" if lookup.is_miss else "hit"
            self.node.observe(Observation(Metric.IMAGE_LOOKUPS, labels=(result,)))

    def _observe_prune(self, pruned: StorePruned) -> None:
        """Tell what a prune did; a dry run, or one that found enough space free, kept nobody waiting."""
        if pruned.exclusive_ms > 0:
            self.node.observe(Observation(Metric.PRUNE_EXCLUSIVE_SECONDS, pruned.exclusive_ms / 1000))
            self.node.observe(Observation(Metric.PRUNED_IMAGES, len(pruned.images)))
            self.node.observe(Observation(Metric.PRUNED_LAYERS, len(pruned.layers)))
            self.node.observe(Observation(Metric.PRUNED_BYTES, pruned.bytes_freed))


class _Lookup:
    """Passes progress on and sees by it whether a layer was missing; what the store has makes none, or none in bytes.

    Attributes:
        is_miss: Whether one was.
    """

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self.is_miss = False

    def __call__(self, progress: Progress) -> None:
        self.is_miss = self.is_miss or progress.bytes_total > 0
        self._on_progress(progress)


def _outcome(answer: object) -> Outcome:
    if isinstance(answer, Elsewhere):
        return Outcome.FORWARDED
    return Outcome.ABSENT if answer is False else Outcome.DONE
