# SPDX-License-Identifier: Apache-2.0
"""A container's record: what was provisioned into it and what is being provisioned, on the node's disk.

The record is the truth; Redis shows a view of it. It is written before the kernel is asked for a mount, so whatever is
mounted is recorded, and `recover` brings back or takes down what it says.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from worker.errors import InvalidArgument, RecordCorrupt
from worker.linux import durable
from worker.oci.digest import Digest

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionInfo:
    """What `provision` answers; field for field the wire contract.

    Attributes:
        container_id: The container.
        name: Of the rootfs within the container.
        node: Where it is.
        image: The reference, normalised.
        digest: Of the manifest.
        backend: What assembled it.
        layer_format: How its layers lie on disk.
        layers: DiffIDs, base first.
        rootfs: Absolute path.
        ephemeral_volumes: Absolute paths to count towards a disk quota.
        docker_manifest: The image configuration, or None.
        appc_manifest: The Appc manifest, or None.
        bundle: Absolute path of the runtime bundle, or None if nobody asked for one.
    """

    container_id: str
    name: str
    node: str
    image: str
    digest: str
    backend: str
    layer_format: str
    layers: tuple[str, ...]
    rootfs: str
    ephemeral_volumes: tuple[str, ...] = ()
    docker_manifest: Mapping[str, Any] | None = None
    appc_manifest: Mapping[str, Any] | None = None
    bundle: str | None = None

    def to_document(self) -> dict[str, Any]:
        """Return the JSON object."""
        document = asdict(self)
        return document | {"layers": list(self.layers), "ephemeral_volumes": list(self.ephemeral_volumes)}

    def to_json(self) -> str:
        """Return the JSON text."""
        return json.dumps(self.to_document())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        return cls.from_document(json.loads(text))

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read the JSON object. Raises KeyError, TypeError or InvalidArgument for another shape."""
        Digest.parse(document["digest"])
        sequences = {key: tuple(str(item) for item in document[key]) for key in ("layers", "ephemeral_volumes")}
        return cls(**{**document, **sequences})


@dataclass(frozen=True, slots=True, kw_only=True)
class RootfsRecord:
    """One rootfs of the container.

    Attributes:
        info: What was answered for it.
        is_read_only: As requested.
    """

    info: ProvisionInfo
    is_read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord:
    """All rootfses of one container, by name.

    Attributes:
        rootfses: Those recorded for mounting.
        pending: Digests of images pinned for rootfses still being pulled.
        generation: Which container of this id it is: Redis may show an older one, from an old copy.
    """

    rootfses: Mapping[str, RootfsRecord] = field(default_factory=dict)
    pending: Mapping[str, str] = field(default_factory=dict)
    generation: str = ""

    def with_pending(self, name: str, digest: Digest, *, generation: str) -> Self:
        """Add a pinned image to this generation."""
        return replace(self, pending={**self.pending, name: str(digest)}, generation=generation)

    def with_rootfs(self, record: RootfsRecord, *, generation: str) -> Self:
        """Add a rootfs to this generation; its name is pending no more."""
        name = record.info.name
        rootfses = {**self.rootfses, name: record}
        return replace(self, rootfses=rootfses, pending=_without(self.pending, name), generation=generation)

    def without(self, name: str) -> Self:
        """Forget a rootfs or a pinned image of this name."""
        return replace(self, rootfses=_without(self.rootfses, name), pending=_without(self.pending, name))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take down."""
        return not self.rootfses and not self.pending


def read_record(path: Path) -> ContainerRecord:
    """Read a record; an absent file is an empty record.

    Raises:
        RecordCorrupt: The file holds something else.
    """
    try:
        document = json.loads(path.read_bytes())
        rootfses = {name: _read_rootfs(entry) for name, entry in document["rootfses"].items()}
        return ContainerRecord(
            rootfses=rootfses, pending=dict(document["pending"]), generation=str(document["generation"])
        )
    except FileNotFoundError:
        return ContainerRecord()
    except (ValueError, KeyError, TypeError, AttributeError, InvalidArgument, IsADirectoryError) as error:
        raise RecordCorrupt(path=str(path), reason=f"it is no container record ({error})") from error


def write_record(path: Path, record: ContainerRecord) -> None:
    """Replace the record atomically; survives power loss on return. Locking: the caller holds the container's flock."""
    document = {
        "rootfses": {name: _rootfs(entry) for name, entry in record.rootfses.items()},
        "pending": record.pending,
        "generation": record.generation,
    }
    durable.write_file(path, json.dumps(document).encode())


def _rootfs(entry: RootfsRecord) -> dict[str, Any]:
    return {"info": entry.info.to_document(), "is_read_only": entry.is_read_only}


def _read_rootfs(document: Mapping[str, Any]) -> RootfsRecord:
    info = ProvisionInfo.from_document(document["info"])
    return RootfsRecord(info=info, is_read_only=bool(document["is_read_only"]))


def _without(mapping: Mapping[str, T], name: str) -> dict[str, T]:
    return {key: value for key, value in mapping.items() if key != name}
