# SPDX-License-Identifier: Apache-2.0
"""What is known of archives that were read before, so that an unchanged one need not be fetched to be named again.

A file for each place in which an archive was found, in the store beside its layers: what the source calls the version
that was read, and what reading it told. It is a memory and not the truth: a file that is lost or damaged costs a
download.
"""

import hashlib
import json
import os
import time
from base64 import b64decode, b64encode
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from worker.errors import InvalidArgument, StorageExhausted
from worker.linux import durable
from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest
from worker.oci.media_types import OCI_LAYER

_VERSION = 1
"""Grows when archives are adapted to layers in another way: their DiffIDs are others then."""

_KEEP_SECONDS = 30 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAci:
    """What reading an archive told.

    Attributes:
        tag: What its source calls this version of it.
        image_id: The sha512 of its uncompressed tar.
        manifest: Its manifest, byte for byte.
        layer: Of its rootfs.
        sizes_bytes: As it came, and uncompressed.
    """

    tag: str
    image_id: Digest
    manifest: bytes = field(repr=False)
    layer: Descriptor
    sizes_bytes: frozenset[int]

    def to_json(self) -> bytes:
        """Return the JSON text."""
        document = {
            "tag": self.tag,
            "image_id": str(self.image_id),
            "manifest": b64encode(self.manifest).decode(),
            "diff_id": str(self.layer.digest),
            "size": self.layer.size_bytes,
            "sizes": sorted(self.sizes_bytes),
        }
        return json.dumps(document).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Read what `to_json` wrote."""
        document: dict[str, Any] = json.loads(text)
        digest = Digest.parse(document["diff_id"])
        return cls(
            tag=document["tag"],
            image_id=Digest.parse(document["image_id"]),
            manifest=b64decode(document["manifest"]),
            layer=Descriptor(media_type=OCI_LAYER, digest=digest, size_bytes=document["size"]),
            sizes_bytes=frozenset(document["sizes"]),
        )


class KnownAcis:
    """The shelf of what is known.

    Args:
        directory: Made when it is needed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, place: str) -> KnownAci | None:
        """Return what is known of the archive in this place."""
        path = self._path(place)
        try:
            checksum, _, content = path.read_bytes().partition(b"\n")
            if checksum != _checksum(content):
                return None
            known = KnownAci.from_json(content)
            os.utime(path)
        except (OSError, ValueError, KeyError, TypeError, InvalidArgument):
            return None
        return known

    def put(self, place: str, known: KnownAci) -> None:
        """Remember an archive; what nobody asked for in thirty days is forgotten. A full disk is no error here."""
        content = known.to_json()
        with suppress(StorageExhausted):
            durable.make_dirs(self._directory)
            self._sweep()
            durable.write_file(self._path(place), _checksum(content) + b"\n" + content)

    def forget(self, place: str) -> None:
        """Forget an archive that is another by now."""
        self._path(place).unlink(missing_ok=True)

    def _path(self, place: str) -> Path:
        return self._directory / hashlib.sha256(f"{_VERSION}\0{place}".encode()).hexdigest()

    def _sweep(self) -> None:
        before = time.time() - _KEEP_SECONDS
        for path in self._directory.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
