# SPDX-License-Identifier: Apache-2.0
"""A layer without what a manifest's `pathWhitelist` does not list.

Listed paths stay, and the directories that lead to them; a listed directory stays by itself, without what is in it.

Source: appc spec 0.8.11, aci.md, "Image Manifest Schema".
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator

from worker.layers.limits import LayerLimits
from worker.layers.names import normalised
from worker.layers.refusal import Refusal
from worker.layers.stream import ByteStream
from worker.layers.tar_entry import EntryType, TarEntry
from worker.layers.tar_reader import TarReader
from worker.layers.tar_writer import END_MARK
from worker.pullers.appc.adapt import batched, member


def keep_listed(chunks: Iterator[bytes], whitelist: Collection[str], *, limits: LayerLimits) -> Iterator[bytes]:
    """Yield a layer's tar with listed entries only.

    Raises, while iterating:
        Refusal: A hard link that stays joins a file that does not.
    """
    return batched(_members(TarReader(ByteStream(chunks), limits), _Whitelist(whitelist)))


class _Whitelist:
    """Judges paths."""

    def __init__(self, paths: Collection[str]) -> None:
        # Sorted instead of with all their parents: a path can have two thousand, each almost as long as itself.
        self._sorted = sorted(path.encode("utf-8", "surrogateescape") for path in paths)
        self._listed = frozenset(self._sorted)

    def keeps(self, entry: TarEntry) -> bool:
        """Tell whether the entry stays."""
        path = normalised(entry.name)
        if path not in self._listed and not (entry.type is EntryType.DIRECTORY and self._is_leading(path)):
            return False
        if entry.type is EntryType.HARD_LINK and normalised(entry.linkname) not in self._listed:
            raise Refusal("it is in pathWhitelist, and a hard link to a file that is not", entry=entry.name)
        return True

    def _is_leading(self, path: bytes) -> bool:
        """Tell whether a listed path is below: then the first one that is not less than `path/` begins with it."""
        begin = path + b"/" if path else b""
        place = bisect_left(self._sorted, begin)
        return place < len(self._sorted) and self._sorted[place].startswith(begin)


def _members(reader: TarReader, whitelist: _Whitelist) -> Iterator[bytes | memoryview]:
    for entry in reader:
        if whitelist.keeps(entry):
            yield from member(reader, entry)
    yield END_MARK
