# SPDX-License-Identifier: Apache-2.0
"""Values of the per-container state: what transitions answer and what schedulers and people read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from worker.container_id import ContainerId


class ContainerState(StrEnum):
    """What a container is doing; it follows from what its hash holds.

    PROVISIONING: At least one rootfs is being provisioned.
    PROVISIONED: At least one rootfs is there and none is being provisioned.
    DESTROYING: It, or a container it is nested in, is being destroyed; no provision can win any more.
    HOLDER: It has no rootfs and exists only as the parent of nested containers.
    """

    PROVISIONING = "provisioning"
    PROVISIONED = "provisioned"
    DESTROYING = "destroying"
    HOLDER = "holder"


class BeginKind(StrEnum):
    """How `Containers.begin_provision` ended."""

    BEGUN = "begun"
    PROVISIONED = "provisioned"
    CONFLICT = "conflict"
    DESTROYING = "destroying"
    ELSEWHERE = "elsewhere"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginOutcome:
    """Answer of `Containers.begin_provision`; only the attributes that belong to the kind are set.

    Attributes:
        kind: UNKNOWN: Redis lost data, and the node that has the container may have yet to show it.
        generation: BEGUN: what later transitions of this provision must show.
        epoch: BEGUN: mark of the epoch; once there is another one, Redis may have lost this transition.
        info: PROVISIONED: the ProvisionInfo JSON answered earlier.
        image: CONFLICT: the image that has the name.
        container_id: DESTROYING: the outermost of the container and its ancestors that is being destroyed.
        node: ELSEWHERE: the node that has the container or its root ancestor.
    """

    kind: BeginKind
    generation: str = ""
    epoch: str = ""
    info: str = ""
    image: str = ""
    container_id: ContainerId | None = None
    node: str = ""


class DestroyKind(StrEnum):
    """How `Containers.begin_destroy` ended."""

    MARKED = "marked"
    ABSENT = "absent"
    ELSEWHERE = "elsewhere"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyOutcome:
    """Answer of `Containers.begin_destroy`.

    Attributes:
        kind: UNKNOWN: Redis lost data, and the node that has the container may have yet to show it.
        order: MARKED: what to destroy, every child before its parent, the container itself last.
        node: ELSEWHERE: the node that has the container or its root ancestor.
        epoch: MARKED, ABSENT: mark of the epoch; once there is another one, Redis may have lost the mark.
    """

    kind: DestroyKind
    order: tuple[ContainerId, ...] = ()
    node: str = ""
    epoch: str = ""


class RestoreKind(StrEnum):
    """How `Containers.restore` ended."""

    RESTORED = "restored"
    DESTROYING = "destroying"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOutcome:
    """Answer of `Containers.restore`.

    Attributes:
        container_id: DESTROYING: the outermost of the container and its ancestors that is being destroyed.
        node: ELSEWHERE: the node that has the container or its root ancestor.
        is_in_doubt: ELSEWHERE: that node has yet to say whether it has it; later, the answer may be another.
    """

    kind: RestoreKind
    container_id: ContainerId | None = None
    node: str = ""
    is_in_doubt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerView:
    """One container as Redis shows it; times are milliseconds since 1970 by the server's clock.

    Attributes:
        generation: Minted when the container appeared; another one is another container of the same id.
        changed_ms: When the state, a rootfs or a pending name last changed.
        images: Normalised image by the name of each rootfs that is there.
        pending: Normalised image by the name of each rootfs being provisioned.
        requests: What was asked for, by pending name, as the caller gave it.
        attempts: Failures since the last success.
        last_error: Of the latest failure, or "".
        retry_at_ms: When the failed provision or destroy is tried again; None when no retry is awaited.
        waits_for: What the provision or destroy waits for, or "".
        infos: ProvisionInfo JSON by name; filled by `Containers.get`, empty in listings.
    """

    container_id: ContainerId
    state: ContainerState
    node: str
    generation: str
    created_ms: int
    changed_ms: int
    images: Mapping[str, str] = field(default_factory=dict)
    pending: Mapping[str, str] = field(default_factory=dict)
    requests: Mapping[str, str] = field(default_factory=dict)
    attempts: int = 0
    last_error: str = ""
    retry_at_ms: int | None = None
    waits_for: str = ""
    infos: Mapping[str, str] = field(default_factory=dict)

    def to_document(self) -> dict[str, Any]:
        """Return the JSON object for `provisioner ps`, without the infos, which `provisioner inspect` shows apart."""
        return {
            "container_id": str(self.container_id),
            "state": str(self.state),
            "node": self.node,
            "generation": self.generation,
            "created_ms": self.created_ms,
            "changed_ms": self.changed_ms,
            "images": dict(self.images),
            "pending": dict(self.pending),
            "attempts": self.attempts,
            "last_error": self.last_error,
            "retry_at_ms": self.retry_at_ms,
            "waits_for": self.waits_for,
        }


def read_view(container_id: ContainerId, row: Mapping[str, str], infos: Mapping[str, str]) -> ContainerView:
    """Build the view from the fields of the container's hash."""
    retry_at_ms = row.get("retry_at_ms")
    return ContainerView(
        container_id=container_id,
        state=ContainerState(row["state"]),
        node=row["node"],
        generation=row["generation"],
        created_ms=int(row["created_ms"]),
        changed_ms=int(row["changed_ms"]),
        images=_by_name(row, "image:"),
        pending=_by_name(row, "pending:"),
        requests=_by_name(row, "request:"),
        attempts=int(row.get("attempts", 0)),
        last_error=row.get("last_error", ""),
        retry_at_ms=None if retry_at_ms is None else int(retry_at_ms),
        waits_for=row.get("waits_for", ""),
        infos=infos,
    )


def _by_name(row: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in sorted(row.items()) if key.startswith(prefix)}
