# SPDX-License-Identifier: Apache-2.0
"""Where the members of a tar file lie, so that single ones can be read without unpacking it.

Cost: one header read per member, whatever its size: contents are passed over by seeking.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from typing_extensions import override

from worker.errors import InvalidImage
from worker.layers.limits import LayerLimits
from worker.layers.refusal import Excess, Refusal, shown
from worker.layers.stream import ByteStream
from worker.layers.tar_entry import EntryType, TarEntry
from worker.layers.tar_reader import TarReader
from worker.pullers.content import Content, Extent

_MAX_MEMBERS = 100_000
_MAX_LINKS = 8
_LINKS = frozenset({EntryType.SYMLINK, EntryType.HARD_LINK})
_FILES = frozenset({EntryType.REGULAR, *_LINKS})


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the archive, or a link to another.

    Attributes:
        offset: Where its content begins.
        size_bytes: Of the content.
        target: Path of the member a link leads to; None for a file.
    """

    offset: int
    size_bytes: int
    target: str | None = None


class ArchiveContent(Content):
    """Files of an uncompressed tar file.

    Args:
        descriptor: Of the file, open for as long as the content is used.
        members: By path, as `index_members` returns them.
    """

    def __init__(self, descriptor: int, members: Mapping[str, Member], *, image: str, max_document_bytes: int) -> None:
        super().__init__(image=image, max_document_bytes=max_document_bytes)
        self._descriptor = descriptor
        self._members = members

    def __contains__(self, path: str) -> bool:
        return path in self._members

    @override
    @contextmanager
    def open(self, path: str) -> Iterator[Extent]:
        member = self._find(path)
        yield Extent(self._descriptor, member.offset, member.size_bytes)

    def _find(self, path: str) -> Member:
        """Follow links, as `docker save` writes them for a layer that stands in several images."""
        target: str | None = path
        for _ in range(_MAX_LINKS):
            member = None if target is None else self._members.get(target)
            if member is None:
                break
            if member.target is None:
                return member
            target = member.target
        raise InvalidImage(image=self.image, reason=f"it has no {path}")


def index_members(descriptor: int, *, image: str, max_header_bytes: int) -> dict[str, Member]:
    """Return the files and links of an uncompressed tar file by path; anything else in it is passed over.

    Raises:
        InvalidImage: It is no tar file, is cut off or malformed, or names a file twice.
    """
    limits = LayerLimits(max_layer_bytes=2**63 - 1, max_entries=_MAX_MEMBERS, max_header_bytes=max_header_bytes)
    try:
        return _index(TarReader(_FileStream(descriptor), limits))
    except Excess as excess:
        raise InvalidImage(image=image, reason=f"its archive exceeds {excess}") from excess
    except Refusal as refusal:
        place = f" at {shown(refusal.entry)!r}" if refusal.entry else ""
        raise InvalidImage(image=image, reason=f"its archive is refused{place}: {refusal}") from refusal


def _index(entries: Iterable[TarEntry]) -> dict[str, Member]:
    members: dict[str, Member] = {}
    for entry in entries:
        if entry.type in _FILES:
            path = _normal(shown(entry.name))
            if path in members:
                raise Refusal("there are two files of this name", entry=entry.name)
            members[path] = _member(entry, path)
    return members


def _member(entry: TarEntry, path: str) -> Member:
    if entry.extents is not None:
        raise Refusal("sparse files are not supported here", entry=entry.name)
    linkname = shown(entry.linkname)
    if entry.type is EntryType.SYMLINK:
        return Member(0, 0, _normal(str(PurePosixPath(path).parent / linkname)))
    if entry.type is EntryType.HARD_LINK:
        return Member(0, 0, _normal(linkname))
    return Member(entry.data_offset, entry.data_bytes)


def _normal(path: str) -> str:
    """Return the path without `.`, `..` and a leading slash; it is only ever looked up, never opened."""
    return os.path.normpath(f"/{path}").lstrip("/")


class _FileStream(ByteStream):
    """Passes over bytes by not reading them."""

    __slots__ = ("_descriptor", "_size_bytes")

    def __init__(self, descriptor: int) -> None:
        super().__init__(iter(()))
        self._descriptor = descriptor
        self._size_bytes = os.fstat(descriptor).st_size

    @override
    def read_available(self, count: int) -> bytes:
        taken = os.pread(self._descriptor, count, self.position)
        self.position += len(taken)
        return taken

    @override
    def skip(self, count: int) -> None:
        if self.position + count > self._size_bytes:
            raise Refusal("the archive is cut off")
        self.position += count

    @override
    def drain(self) -> None:
        """What follows the end mark is no part of the archive."""
