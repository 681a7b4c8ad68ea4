# SPDX-License-Identifier: Apache-2.0
"""verify: compare all that a store holds, and what this node's containers stand on, with what it must be; repair it.

Looking takes no lock: it goes on beside provisions and prunes. Repairing fetches only what is damaged.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from worker.container_id import ContainerId
from worker.errors import ImageNotFound, LayerVanished, ProvisionerError, RecordCorrupt
from worker.image import LayerFormat
from worker.oci.digest import Digest
from worker.problem import Problem, ProblemKind
from worker.records import read_record
from worker.requests import VerifyRequest
from worker.store.trash import empty_trash
from worker.store.verify import (
    Layer,
    check_image,
    check_layer,
    check_references,
    check_refs,
    check_strays,
    layer_subject,
)
from worker.verbs.heal import heal_image, heal_layer, heal_layers
from worker.verbs.home import existing
from worker.verbs.node import Elsewhere, Node, OnProgress, Progress
from worker.verbs.remount import bring_back
from worker.verbs.stack import merge_anew
from worker.verbs.standing import check_containers


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreVerified:
    """What was found in one store.

    Attributes:
        store: Its identity.
        node: Which node looked, and whose containers were looked at.
        checked_layers: How many layers were read, each format for itself.
        checked_bytes: What was read of them.
        problems: What is wrong now, after repairs if they were asked for.
        repaired: What was wrong and is not any more.
    """

    store: str
    node: str
    checked_layers: int
    checked_bytes: int
    problems: tuple[Problem, ...]
    repaired: tuple[Problem, ...]


Cure = Callable[[], tuple[Problem, ...]]
"""Puts something right and returns what it leaves wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """A problem and what helps against it; without a cure somebody has to look.

    Attributes:
        cured_with: Findings with the same text are put right by the same cure, which is tried once.
    """

    problem: Problem
    cure: Cure | None = None
    cured_with: str = ""


class _Tally:
    """Counts what is read, and passes it on."""

    def __init__(self, on_progress: OnProgress) -> None:
        self.layers = self.bytes = self.layers_total = self.bytes_total = 0
        self._on_progress = on_progress

    def add_bytes(self, count: int) -> None:
        self.bytes += count
        self._report()

    def add_layer(self) -> None:
        self.layers += 1
        self._report()

    def _report(self) -> None:
        progress = Progress(
            bytes_fetched=self.bytes,
            bytes_total=max(self.bytes_total, self.bytes),
            layers_done=self.layers,
            layers_total=self.layers_total,
        )
        self._on_progress(progress)


def verify(node: Node, request: VerifyRequest, *, on_progress: OnProgress) -> StoreVerified | Elsewhere:
    """Find every mismatch in the store and in this node's containers; with `repair` put right what can be.

    With an image only that one, its layers, references and rootfses.

    Effect: looking changes nothing. A repair may be killed anywhere and run again, and beside anything else.

    Raises:
        ImageNotFound: The store does not know the image.
    """
    if request.node not in (None, node.name):
        return Elsewhere(node=str(request.node))
    only, tally = _asked_for(node, request), _Tally(on_progress)
    findings = list(_find(node, only, tally))
    repaired, problems = _repair(findings) if request.repair else ([], [finding.problem for finding in findings])
    if request.repair:
        empty_trash(node.store.paths.trash_dir)
    return StoreVerified(
        store=node.store.identity,
        node=node.name,
        checked_layers=tally.layers,
        checked_bytes=tally.bytes,
        problems=tuple(sorted(problems)),
        repaired=tuple(sorted(repaired)),
    )


def _asked_for(node: Node, request: VerifyRequest) -> frozenset[Digest] | None:
    """Return the images that are meant, None for all."""
    if request.image is None:
        return None
    digest, reference = request.digest, request.reference
    found = {each.digest for _, each in node.store.images.references() if each.reference == reference}
    if digest is not None and node.store.paths.image_dir(str(digest)).exists():
        found.add(digest)
    if not found:
        raise ImageNotFound(image=str(request.image), reason=f"the store of node {node.name} does not know it")
    return frozenset(found)


def _find(node: Node, only: frozenset[Digest] | None, tally: _Tally) -> Iterator[_Finding]:
    """Yield all findings, in an order in which they can be repaired: images, layers, what is computed of them."""
    store = node.store
    digests = sorted(only if only is not None else store.images.digests())
    images = [each for digest in digests for each in _check_image(node, digest)]
    yield from (_image_finding(node, problem) for problem in images if problem.kind is ProblemKind.IMAGE_CORRUPT)
    yield from _find_in_layers(node, only, tally)
    yield from (_image_finding(node, problem) for problem in images if problem.kind is not ProblemKind.IMAGE_CORRUPT)
    for digest in digests:
        yield from (_ref_finding(node, problem, digest) for problem in check_refs(store, digest))
    for problem, path in check_references(store, only=only):
        yield _Finding(problem=problem, cure=partial(_unlink, path), cured_with=str(path))
    yield from (_container_finding(node, problem) for problem in check_containers(node, only=only))
    if only is None:
        yield from (_Finding(problem=problem) for problem in check_strays(store))


def _check_image(node: Node, digest: Digest) -> Iterator[Problem]:
    return check_image(node.store, digest, max_layers=node.settings.max_layers, limits=node.limits)


def _find_in_layers(node: Node, only: frozenset[Digest] | None, tally: _Tally) -> Iterator[_Finding]:
    layers = list(node.store.layers.committed())
    if only is not None:
        wanted = {layer for digest in only for layer in _layers_of(node, digest)}
        layers = [layer for layer in layers if layer[1] in wanted]
        yield from _find_missing(wanted, layers)
    tally.layers_total = len(layers)
    tally.bytes_total = sum(_tar_bytes(node, layer) for layer in layers)
    for layer in sorted(layers):
        for problem in check_layer(node.store, layer, limits=node.limits, on_progress=tally.add_bytes):
            yield _Finding(problem=problem, cure=partial(_cure_layer, node, layer), cured_with=layer_subject(layer))
        tally.add_layer()


def _find_missing(wanted: set[Digest], layers: list[Layer]) -> Iterator[_Finding]:
    """Of an image that was asked for, a layer must be there in some format."""
    for diff_id in sorted(wanted - {diff_id for _, diff_id in layers}):
        detail = "it is in no format in the store; `pull` brings it"
        yield _Finding(problem=Problem(kind=ProblemKind.IMAGE_LAYER_MISSING, subject=str(diff_id), detail=detail))


def _layers_of(node: Node, digest: Digest) -> tuple[Digest, ...]:
    try:
        image = node.store.images.get(digest)
    except RecordCorrupt:
        return ()
    return () if image is None else image.layers


def _tar_bytes(node: Node, layer: Layer) -> int:
    try:
        return node.store.layers.record(layer[1], layer_format=layer[0]).tar_bytes
    except (LayerVanished, RecordCorrupt):
        return 0


# Cures.


def _repair(findings: list[_Finding]) -> tuple[list[Problem], list[Problem]]:
    """Try each cure once; return what is right now, and what is still or newly wrong, with the reason."""
    outcomes: dict[str, str] = {}
    repaired, problems = [], []
    for finding in findings:
        if finding.cure is None:
            problems.append(finding.problem)
            continue
        if finding.cured_with not in outcomes:
            outcomes[finding.cured_with], left = _try(finding.cure)
            problems += left
        failure = outcomes[finding.cured_with]
        if failure:
            problems.append(replace(finding.problem, detail=f"{finding.problem.detail}; not repairable now: {failure}"))
        else:
            repaired.append(finding.problem)
    return repaired, problems


def _try(cure: Cure) -> tuple[str, tuple[Problem, ...]]:
    try:
        return "", cure()
    except (ProvisionerError, OSError) as error:
        return str(error) or type(error).__name__, ()


def _image_finding(node: Node, problem: Problem) -> _Finding:
    cures = {ProblemKind.IMAGE_CORRUPT: _cure_image, ProblemKind.IMAGE_MERGED_WRONG: _cure_merged}
    cure = partial(cures[problem.kind], node, Digest.parse(problem.subject))
    return _Finding(problem=problem, cure=cure, cured_with=f"{problem.kind} {problem.subject}")


def _ref_finding(node: Node, problem: Problem, digest: Digest) -> _Finding:
    return _Finding(problem=problem, cure=partial(_cure_refs, node, digest), cured_with=f"refs {digest}")


def _container_finding(node: Node, problem: Problem) -> _Finding:
    """`recover` knows what to do about a corrupt record; a wrong mount under a container is not taken away."""
    incurable = (ProblemKind.CONTAINER_RECORD_CORRUPT, ProblemKind.CONTAINER_MOUNT_WRONG)
    if problem.kind in incurable:
        return _Finding(problem=problem)
    container_id, _, name = problem.subject.partition("/")
    cure = partial(_cure_container, node, ContainerId.parse(container_id), name)
    return _Finding(problem=problem, cure=cure, cured_with=f"container {problem.subject}")


def _cure_image(node: Node, digest: Digest) -> tuple[Problem, ...]:
    heal_image(node, digest)
    return ()


def _cure_merged(node: Node, digest: Digest) -> tuple[Problem, ...]:
    merge_anew(node, digest, _layers_of(node, digest))
    return ()


def _cure_layer(node: Node, layer: Layer) -> tuple[Problem, ...]:
    """Fetch the layer anew; who stands on the old files is to be provisioned anew."""
    healed = heal_layer(node, layer[1], layer_format=layer[0])
    detail = f"it stands on the replaced files of layer {layer_subject(layer)}: destroy it and provision it anew"
    return tuple(
        Problem(
            kind=ProblemKind.CONTAINER_MOUNT_WRONG,
            subject=f"{owner.container_id}/{owner.name}",
            detail=detail if owner.node == node.name else f"on node {owner.node}, {detail}",
        )
        for owner in healed.stale
    )


def _cure_refs(node: Node, digest: Digest) -> tuple[Problem, ...]:
    for path, owner in node.store.images.refs(digest):
        if owner is None:
            node.store.images.drop_stale(path, is_stale=lambda found: found is None)
    return ()


def _cure_container(node: Node, container_id: ContainerId, name: str) -> tuple[Problem, ...]:
    """Bring back image, layers, ref and mount of a recorded rootfs."""
    entry = read_record(node.work.record_path(container_id.parts)).rootfses.get(name)
    if entry is None:
        return ()
    digest, layers = Digest.parse(entry.info.digest), [Digest.parse(text) for text in entry.info.layers]
    if not node.store.paths.image_dir(str(digest)).exists():
        heal_image(node, digest)
    heal_layers(node, layers, layer_format=LayerFormat(entry.info.layer_format), credential=None)
    with existing(node.work, container_id) as home, node.shared():
        current = home.read().rootfses.get(name)
        if current is not None:
            bring_back(node, container_id, current)
    return ()


def _unlink(path: Path) -> tuple[Problem, ...]:
    path.unlink(missing_ok=True)
    return ()
