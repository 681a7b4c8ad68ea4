# SPDX-License-Identifier: Apache-2.0
"""From an ACI's tar to a layer's: `rootfs/` becomes the root, the manifest is taken out.

The layer's tar is written anew entry by entry, so that it does not matter how the archive's author wrote it. Whoever
builds the layer judges everything below the root, as of any layer. Source: appc spec 0.8.11, aci.md, "Image Archives".
"""

from collections.abc import Iterable, Iterator
from typing import Final

from worker.layers.limits import LayerLimits
from worker.layers.names import WHITEOUT_PREFIX, normalised
from worker.layers.refusal import Excess, Refusal
from worker.layers.stream import ByteStream
from worker.layers.tar_entry import EntryType, TarEntry
from worker.layers.tar_reader import TarReader
from worker.layers.tar_writer import END_MARK, member_head, padding
from worker.settings import MIB

ROOT: Final = b"./"
_MANIFEST = b"manifest"
_ROOTFS = b"rootfs"
_BELOW_ROOTFS = b"rootfs/"
_BATCH_BYTES = MIB


class Adapter:
    """Adapts one archive.

    Args:
        limits: How far the archive may go.
        max_manifest_bytes: The most its manifest may have.

    Attributes:
        manifest: Byte for byte, once the archive has been adapted.
    """

    def __init__(self, limits: LayerLimits, *, max_manifest_bytes: int) -> None:
        self.manifest = b""
        self._limits = limits
        self._max_manifest_bytes = max_manifest_bytes
        self._has_manifest = False
        self._has_rootfs = False

    def adapt(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the layer's tar; takes all of `chunks`, the archive's tar.

        Raises, while iterating:
            Refusal: The archive is malformed, lacks one of its two parts, or has anything outside of them.
            Excess: It goes beyond a limit.
        """
        reader = TarReader(ByteStream(chunks), self._limits)
        return batched(self._members(reader))

    def _members(self, reader: TarReader) -> Iterator[bytes | memoryview]:
        for entry in reader:
            if (adapted := self._adapted(reader, entry)) is not None:
                yield from member(reader, adapted)
        if not (self._has_manifest and self._has_rootfs):
            raise Refusal(f"it has no {'manifest' if self._has_rootfs else 'rootfs'}")
        yield END_MARK

    def _adapted(self, reader: TarReader, entry: TarEntry) -> TarEntry | None:
        """Return the entry as it stands in the layer, or None if it does not."""
        path = _path_of(entry.name, entry)
        if path == _MANIFEST:
            self._take_manifest(reader, entry)
            return None
        if path == _ROOTFS or not path:
            self._check_directory(entry)
            self._has_rootfs |= path == _ROOTFS
            return entry._replace(name=ROOT) if path else None
        self._has_rootfs = True
        name = _below_rootfs(path, entry)
        if entry.type is not EntryType.HARD_LINK:
            return entry._replace(name=name)
        return entry._replace(name=name, linkname=_below_rootfs(_path_of(entry.linkname, entry), entry))

    def _take_manifest(self, reader: TarReader, entry: TarEntry) -> None:
        if self._has_manifest:
            raise Refusal("there are two manifests", entry=entry.name)
        if entry.type is not EntryType.REGULAR or entry.extents is not None:
            raise Refusal("the manifest is not a regular file", entry=entry.name)
        if entry.data_bytes > self._max_manifest_bytes:
            raise Excess("bytes of a manifest", self._max_manifest_bytes)
        self._has_manifest = True
        self.manifest = b"".join(reader.data())

    def _check_directory(self, entry: TarEntry) -> None:
        if entry.type is not EntryType.DIRECTORY:
            raise Refusal(f"a {entry.type.value} stands in the place of a directory", entry=entry.name)


def member(reader: TarReader, entry: TarEntry) -> Iterator[bytes | memoryview]:
    """Yield one member of a tar with the data that `reader` has for it."""
    yield member_head(entry)
    yield from reader.data()
    yield padding(entry.data_bytes)


def batched(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Join small pieces to chunks of about 1 MiB."""
    batch: list[bytes | memoryview] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= _BATCH_BYTES:
            yield b"".join(batch)
            batch, size = [], 0
    if size:
        yield b"".join(batch)


def _path_of(name: bytes, entry: TarEntry) -> bytes:
    if name.startswith(b"/"):
        raise Refusal("an absolute name", entry=entry.name)
    return normalised(name)


def _below_rootfs(path: bytes, entry: TarEntry) -> bytes:
    if not path.startswith(_BELOW_ROOTFS):
        raise Refusal("it is, or is linked to what is, neither the manifest nor below rootfs/", entry=entry.name)
    if WHITEOUT_PREFIX in path and any(part.startswith(WHITEOUT_PREFIX) for part in path.split(b"/")):
        raise Refusal("a name that begins with .wh. would hide files of the images below", entry=entry.name)
    return path.removeprefix(_BELOW_ROOTFS)
