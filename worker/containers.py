# SPDX-License-Identifier: Apache-2.0
"""Per-container state in Redis: a view for schedulers, and the coordination of the verbs. The disk is the truth.

Every transition is one Lua script in one round trip: atomic, compare-and-set, by the server's clock, with the same
effect and answer when redis-py sends it twice because a reply was lost. `worker/lua/container_tree.lua` lists the keys
and the invariants between transitions. Life of a container::

    begin_provision → PROVISIONING → finish_provision → PROVISIONED → begin_destroy → DESTROYING → finish_destroy
                           └→ abort_provision: what it was before

A container whose ancestors are unknown gives them hashes as HOLDERs; a holder goes with its last descendant.
A container takes about 0.8 kB of the server's memory (0.6 kB in Valkey 9.1) and its infos' size besides; a begin and a
finish take it some 25 µs each, whatever the number of containers.
Every method raises `StateUnavailable` when Redis cannot be reached or refuses.
"""

import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import redis

from worker.container_id import ContainerId
from worker.container_index import ContainerIndex, texts_of
from worker.container_view import (
    BeginKind,
    BeginOutcome,
    ContainerState,
    ContainerView,
    DestroyKind,
    DestroyOutcome,
    RestoreKind,
    RestoreOutcome,
    read_view,
)
from worker.epoch import Epoch, epoch_arguments
from worker.lua import script
from worker.redis_errors import redis_errors, text_of

__all__ = [
    "BeginKind",
    "BeginOutcome",
    "ContainerState",
    "ContainerView",
    "Containers",
    "DestroyKind",
    "DestroyOutcome",
    "RestoreKind",
    "RestoreOutcome",
]

MAX_ERROR_CHARS = 512

_TRANSITIONS = (
    "begin_provision",
    "finish_provision",
    "abort_provision",
    "note_failure",
    "note_wait",
    "note_alive",
    "claim",
    "begin_destroy",
    "finish_destroy",
    "restore",
    "forget",
)


class Containers:
    """The containers of one cluster.

    Args:
        client: May be shared by threads.
        key_prefix: What all keys start with; in braces, so that they share a hash slot.
        epoch: The node's part in it; whoever only reads needs none.
    """

    def __init__(self, client: redis.Redis, key_prefix: str, *, epoch: Epoch | None = None) -> None:
        self._client = client
        self._prefix = key_prefix
        self._epoch = epoch
        self._index = ContainerIndex(client, key_prefix)
        self._scripts = {name: script(client, "container_tree", "epoch", f"container_{name}") for name in _TRANSITIONS}

    @redis_errors()
    def begin_provision(  # noqa: PLR0913 - the fields of one hash, by keyword
        self,
        container_id: ContainerId,
        *,
        name: str,
        image: str,
        node: str,
        request: str,
        only: str = "",
        is_shown: bool = False,
    ) -> BeginOutcome:
        """Make the rootfs `name` pending, unless it is there or cannot be.

        The container, name and image decide alone: who asks for an image that is pending joins with BEGUN, whatever
        else the request says. On BEGUN the name is pending, not necessarily by this call; otherwise nothing changes.

        Args:
            image: Normalised reference.
            request: All the caller asked for, opaque; kept with the pending name for whoever takes the work up again.
            only: Generation in which the name has to be pending already, else the answer is DESTROYING; "" for any.
            is_shown: The caller has the container on its disk and has just shown it: UNKNOWN is no answer then.
        """
        arguments = (name, image, node, request, _generation(), only, int(is_shown), *epoch_arguments(self._epoch))
        kind, *details = self._run("begin_provision", container_id, *arguments)
        match BeginKind(kind):
            case BeginKind.BEGUN:
                return BeginOutcome(kind=BeginKind.BEGUN, generation=details[0], epoch=details[1])
            case BeginKind.PROVISIONED:
                return BeginOutcome(kind=BeginKind.PROVISIONED, info=details[0])
            case BeginKind.CONFLICT:
                return BeginOutcome(kind=BeginKind.CONFLICT, image=details[0])
            case BeginKind.DESTROYING:
                return BeginOutcome(kind=BeginKind.DESTROYING, container_id=ContainerId.parse(details[0]))
            case BeginKind.ELSEWHERE:
                return BeginOutcome(kind=BeginKind.ELSEWHERE, node=details[0])
            case BeginKind.UNKNOWN:
                return BeginOutcome(kind=BeginKind.UNKNOWN)

    @redis_errors()
    def finish_provision(self, container_id: ContainerId, *, name: str, image: str, generation: str, info: str) -> bool:
        """Show the rootfs with its ProvisionInfo JSON; failures noted before are forgotten.

        Locking: the caller holds the container's flock, so that `restore` cannot show an older record.

        Returns:
            Whether it is shown, not necessarily by this call. False: the container is being destroyed, gone or another
            one of the same id, or the name is no longer pending for this image.
        """
        return bool(self._run("finish_provision", container_id, name, image, generation, info))

    @redis_errors()
    def abort_provision(self, container_id: ContainerId, *, name: str, image: str, generation: str) -> None:
        """Forget a pending name, and the container and holders above it if nothing is left in them.

        A container that is being destroyed, or another one of the same id, is left alone.
        """
        self._run("abort_provision", container_id, name, image, generation)

    @redis_errors()
    def note_failure(
        self, container_id: ContainerId, *, generation: str, error: str, retry_in_seconds: float | None
    ) -> None:
        """Count a failure of a provision or destroy under way and show it until the next success.

        Args:
            error: Kept up to MAX_ERROR_CHARS characters.
            retry_in_seconds: When the next attempt starts; None if there will be none.
        """
        delay_ms = "" if retry_in_seconds is None else str(round(retry_in_seconds * 1000))
        reason = _printable(error[:MAX_ERROR_CHARS])
        self._run("note_failure", container_id, generation, _generation(), reason, delay_ms)

    @redis_errors()
    def note_wait(self, container_id: ContainerId, *, generation: str, waits_for: str) -> None:
        """Show what a provision or destroy under way waits for.

        Args:
            generation: Of the container that is provisioned; "" for whichever is destroyed.
            waits_for: "" for nothing any more.
        """
        self._run("note_wait", container_id, generation, _printable(waits_for[:MAX_ERROR_CHARS]))

    @redis_errors()
    def note_alive(self, container_id: ContainerId, *, generation: str) -> bool:
        """Show that a provision is being worked on; tell what `is_current` tells."""
        return bool(self._run("note_alive", container_id, generation))

    @redis_errors()
    def claim(self, container_id: ContainerId, *, generation: str, quiet_seconds: float) -> bool:
        """Claim a provision or destroy that nobody gave a sign of work on for so long, twice that after each claim.

        Signs are transitions, failures that will be retried, and `note_alive`.
        """
        return bool(self._run("claim", container_id, generation, round(quiet_seconds * 1000)))

    @redis_errors()
    def now_ms(self) -> int:
        """Return the server's time in milliseconds since 1970, which all times here are in."""
        seconds, microseconds = self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    @redis_errors()
    def begin_destroy(
        self, container_id: ContainerId, *, node: str, generation: str = "", is_shown: bool = False
    ) -> DestroyOutcome:
        """Mark the container and all nested in it as DESTROYING: from here no provision into them can win.

        Marking again answers MARKED again, with what is left. Cost: proportional to the containers nested in it.

        Args:
            generation: Of which the container has to be, and marked already, else the answer is ABSENT; "" for any.
            is_shown: The caller has the container on its disk and has just shown it: UNKNOWN is no answer then.
        """
        arguments = (node, generation, int(is_shown), *epoch_arguments(self._epoch))
        kind, *details = self._run("begin_destroy", container_id, *arguments)
        match DestroyKind(kind):
            case DestroyKind.MARKED:
                order = tuple(ContainerId.parse(text) for text in details[1:])
                return DestroyOutcome(kind=DestroyKind.MARKED, order=order, epoch=details[0])
            case DestroyKind.ELSEWHERE:
                return DestroyOutcome(kind=DestroyKind.ELSEWHERE, node=details[0])
            case DestroyKind.ABSENT:
                return DestroyOutcome(kind=DestroyKind.ABSENT, epoch=details[0])
            case DestroyKind.UNKNOWN:
                return DestroyOutcome(kind=DestroyKind.UNKNOWN)

    @redis_errors()
    def finish_destroy(self, container_id: ContainerId) -> bool:
        """Delete a container marked by `begin_destroy`, and the holders above it that held nothing else.

        Returns:
            Whether it is gone, not necessarily by this call. False, nothing changed: it is not being destroyed
            (somebody provisioned anew), or containers nested in it are left; `begin_destroy` again says what to do.
        """
        return bool(self._run("finish_destroy", container_id))

    @redis_errors()
    def is_destroying(self, container_id: ContainerId, *, generation: str) -> bool:
        """Tell whether this very container is being destroyed.

        Args:
            generation: On its disk: a mark on another one is out of date; "" when the disk has no rootfs of it.
        """
        state, current = self._client.hmget(self._index.hash_key(container_id), ["state", "generation"])
        is_this = generation == "" or (current is not None and text_of(current) == generation)
        return is_this and state is not None and text_of(state) == ContainerState.DESTROYING

    @redis_errors()
    def is_current(self, container_id: ContainerId, *, generation: str) -> bool:
        """Tell whether this very container is there and not being destroyed: whether work for it is still wanted."""
        state, current = self._client.hmget(self._index.hash_key(container_id), ["state", "generation"])
        return current is not None and text_of(current) == generation and text_of(state) != ContainerState.DESTROYING

    @redis_errors()
    def restore(
        self, container_id: ContainerId, *, node: str, generation: str, rootfses: Mapping[str, tuple[str, str]]
    ) -> RestoreOutcome:
        """Show exactly the rootfses that the disk has; names pending for others stay pending.

        Restoring what is shown already changes nothing. Without rootfses the container goes unless others are pending
        or nested in it. DESTROYING and ELSEWHERE change nothing.

        Locking: the caller holds the container's flock since it read the record.

        Args:
            generation: On the disk: what Redis shows of another generation is replaced. Ignored without rootfses.
            rootfses: Normalised image and ProvisionInfo JSON by name.
        """
        triples = [text for name, (image, info) in rootfses.items() for text in (name, image, info)]
        on_disk = generation if rootfses else ""
        kind, *details = self._run("restore", container_id, node, on_disk, _generation(), *triples)
        match RestoreKind(kind):
            case RestoreKind.RESTORED:
                return RestoreOutcome(kind=RestoreKind.RESTORED)
            case RestoreKind.DESTROYING:
                return RestoreOutcome(kind=RestoreKind.DESTROYING, container_id=ContainerId.parse(details[0]))
            case RestoreKind.ELSEWHERE:
                return RestoreOutcome(kind=RestoreKind.ELSEWHERE, node=details[0], is_in_doubt=details[1] == "1")

    def forget_absent(
        self, seen: Iterable[ContainerView], *, kept_ids: Collection[ContainerId]
    ) -> tuple[ContainerId, ...]:
        """Forget those containers of `seen` that are not to be kept and have not changed since they were seen.

        `seen` is listed *before* the disk is read: what appears or finishes meanwhile is then never forgotten. One
        with kept descendants stays as their holder.

        Returns:
            Those that are gone.
        """
        doomed = sorted((view for view in seen if view.container_id not in kept_ids), key=_children_first)
        return tuple(view.container_id for view in doomed if self._forget(view))

    @redis_errors()
    def _forget(self, view: ContainerView) -> bool:
        return bool(self._run("forget", view.container_id, view.generation, view.state, view.changed_ms))

    @redis_errors()
    def get(self, container_id: ContainerId) -> ContainerView | None:
        """Return one container with its infos, or None if there is none."""
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hgetall(self._index.hash_key(container_id))
            pipeline.hgetall(self._index.infos_key(container_id))
            row, infos = pipeline.execute()
        return read_view(container_id, texts_of(row), texts_of(infos)) if row else None

    @redis_errors()
    def node_of(self, container_id: ContainerId) -> str | None:
        """Return the node that has the container or its root ancestor, or None if neither is known."""
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.hget(self._index.hash_key(container_id), "node")
            pipeline.hget(self._index.hash_key(container_id.root), "node")
            return next((text_of(node) for node in pipeline.execute() if node is not None), None)

    @redis_errors()
    def counts(self) -> dict[ContainerState, int]:
        """Return how many containers are in each state."""
        with self._client.pipeline(transaction=True) as pipeline:
            for state in ContainerState:
                pipeline.zcard(self._index.state_key(state))
            return dict(zip(ContainerState, pipeline.execute(), strict=True))

    def list(
        self, *, state: ContainerState | None = None, node: str | None = None, limit: int | None = None
    ) -> Iterator[ContainerView]:
        """Yield containers, without infos: by time of change if a state is asked for, else by node and id.

        A container that is there from the first to the last step is yielded exactly once; with a state, one that
        changes meanwhile may come twice or not at all. Cost: two round trips for 500 containers; nothing is scanned.
        """
        pages = self._index.pages_by_node(node) if state is None else self._index.pages_by_state(state)
        views = (view for page in pages for view in self._index.views(page))
        wanted = (view for view in views if state in (None, view.state) and node in (None, view.node))
        yield from islice(wanted, limit)

    def _run(self, transition: str, container_id: ContainerId, *arguments: object) -> Any:
        """Run a transition's script; texts in its answer are decoded."""
        answer: Any = self._scripts[transition](keys=[self._prefix], args=[str(container_id), *map(str, arguments)])
        return [text_of(item) for item in answer] if isinstance(answer, list) else answer


def _generation() -> str:
    return secrets.token_hex(8)


def _printable(text: str) -> str:
    """Replace what UTF-8 cannot carry, such as the escapes of undecodable file names."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _children_first(view: ContainerView) -> int:
    return -len(view.container_id.parts)
