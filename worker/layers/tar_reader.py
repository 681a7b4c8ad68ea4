# SPDX-License-Identifier: Apache-2.0
"""`TarReader`: the entries of a tar, read once and forward.

Python's tarfile is not used: it takes PAX times for floats, allocates what a header asks for, guesses at damaged
archives where others refuse, and is six times slower.
"""

from collections.abc import Iterator

from worker.layers.limits import LayerLimits
from worker.layers.refusal import Excess, Refusal
from worker.layers.stream import ByteStream
from worker.layers.tar_entry import TarEntry
from worker.layers.tar_header import BLOCK, ZERO_BLOCK, Header, parse_header
from worker.layers.tar_member import Extensions, make_entry
from worker.layers.tar_numbers import checked_size
from worker.layers.tar_pax import PATH, Records, merged, parse_global_records, parse_records
from worker.layers.tar_sparse import SparseMaps

_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = b"x", b"g", b"L", b"K"
_EXTENSIONS = frozenset({_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK})
_UNCOMPRESSED = "uncompressed bytes"


class TarReader:
    """Yields the entries; after each, `data` hands out its bytes, and what is not taken is passed over.

    The end-of-archive mark ends the entries, but iterating goes on to the end of the stream, for the digests' sake. A
    stream that ends without the mark, after a whole entry, is accepted as everywhere else: the DiffID covers it.

    Raises, while iterating:
        Refusal: The archive is malformed or cut off.
        Excess: It goes beyond a limit.
    """

    def __init__(self, stream: ByteStream, limits: LayerLimits) -> None:
        self._stream = stream
        self._limits = limits
        self._maps = SparseMaps(stream, max_bytes=limits.max_header_bytes)
        self._global_records: Records = {}
        self._members = 0
        self._file_bytes = 0
        self._data_left = 0
        self._padding = 0
        self._name = b""

    def __iter__(self) -> Iterator[TarEntry]:
        try:
            while (entry := self._next_entry()) is not None:
                yield entry
                self._stream.skip(self._data_left + self._padding)
            self._stream.drain()
        except Refusal as refusal:
            refusal.entry = refusal.entry or self._name
            raise

    def data(self) -> Iterator[memoryview]:
        """Hand out the data of the entry that was yielded last, once, in pieces; without the holes of a sparse file.

        Raises:
            Refusal: While iterating: the archive is cut off.
        """
        for view in self._stream.views(self._data_left):
            self._data_left -= len(view)
            yield view

    def _next_entry(self) -> TarEntry | None:
        extensions = Extensions()
        while (block := self._read_block()) is not None:
            header = parse_header(block)
            if header.typeflag not in _EXTENSIONS:
                return self._make_entry(header, extensions)
            self._take_extension(header, extensions)
        if not extensions.is_empty:
            raise Refusal("the archive ends after an extended header")
        return None

    def _read_block(self) -> bytes | None:
        """Return the next header block, or None at the end of the archive."""
        block = self._stream.read_available(BLOCK)
        if block == ZERO_BLOCK:
            if any(self._stream.read_available(BLOCK)):
                raise Refusal("a block of zeros stands between entries")
            return None
        if block and len(block) < BLOCK:
            raise Refusal("the archive is cut off")
        return block or None

    def _take_extension(self, header: Header, extensions: Extensions) -> None:
        content = self._read_extension(checked_size(header.size))
        if header.typeflag == _PAX_GLOBAL:
            self._count_member()
            self._global_records |= parse_global_records(content)
        elif header.typeflag == _PAX:
            _once(extensions.records)
            extensions.records = parse_records(content)
        elif header.typeflag == _GNU_NAME:
            _once(extensions.name)
            extensions.name = _until_nul(content)
        else:
            _once(extensions.linkname)
            extensions.linkname = _until_nul(content)

    def _read_extension(self, size: int) -> bytes:
        if size > self._limits.max_header_bytes:
            raise Excess("bytes of an extended header", self._limits.max_header_bytes)
        content = self._stream.read(size)
        self._stream.skip(-size % BLOCK)
        return content

    def _make_entry(self, header: Header, extensions: Extensions) -> TarEntry:
        self._count_member()
        self._name = extensions.name or (extensions.records or {}).get(PATH) or header.name
        records = merged(self._global_records, extensions.records)
        entry = make_entry(header, extensions, records, self._maps)
        self._name = entry.name
        self._expect_data(entry)
        return entry

    def _expect_data(self, entry: TarEntry) -> None:
        """Refuse at once what could not be read or stored to its end within the limits."""
        maximum = self._limits.max_layer_bytes
        self._data_left = entry.data_bytes
        self._padding = -entry.data_bytes % BLOCK
        self._file_bytes += entry.size_bytes
        if entry.data_offset + entry.data_bytes > maximum:
            raise Excess(_UNCOMPRESSED, maximum)
        if self._file_bytes > maximum:
            raise Excess("bytes of files with their holes", maximum)

    def _count_member(self) -> None:
        self._members += 1
        if self._members > self._limits.max_entries:
            raise Excess("entries", self._limits.max_entries)


def _once(earlier: object) -> None:
    if earlier is not None:
        raise Refusal("an entry has two extended headers of a kind")


def _until_nul(content: bytes) -> bytes:
    """Return a GNU long name, which ends in NUL."""
    name, _, rest = content.partition(b"\0")
    if rest.strip(b"\0"):
        raise Refusal("a long name holds a NUL")
    return name
