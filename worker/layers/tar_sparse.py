# SPDX-License-Identifier: Apache-2.0
"""Maps of sparse files: old GNU, and PAX formats 0.0, 0.1 and 1.0.

Source: GNU tar 1.35 manual, "Storing Sparse Files".
"""

from collections.abc import Iterator, Sequence

from worker.layers.refusal import Excess, Refusal
from worker.layers.stream import ByteStream
from worker.layers.tar_entry import Extent
from worker.layers.tar_header import BLOCK
from worker.layers.tar_numbers import checked_size, parse_decimal, parse_field
from worker.layers.tar_pax import SPARSE_MAJOR, SPARSE_MAP, SPARSE_MINOR, SPARSE_REAL_SIZE, SPARSE_SIZE, Records

_LIMIT = "bytes of a sparse map"
_VERSION_1_0 = (b"1", b"0")
_VERSIONS = {(None, None), (b"0", b"0"), (b"0", b"1"), _VERSION_1_0}
_PAIR_BYTES = 24
_HEADER_PAIRS = slice(386, 482)
_HEADER_IS_EXTENDED = 482
_HEADER_REAL_SIZE = slice(483, 495)
_EXTENSION_PAIRS = slice(0, 504)
_EXTENSION_IS_EXTENDED = 504


class SparseMaps:
    """Reads the maps of a stream's sparse files.

    Args:
        stream: Stands behind a header whenever this is asked; afterwards where the data begin.
        max_bytes: The longest map.
    """

    def __init__(self, stream: ByteStream, *, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes

    @property
    def position(self) -> int:
        """The stream's."""
        return self._stream.position

    def read_old_gnu(self, block: bytes) -> tuple[int, tuple[Extent, ...]]:
        """Return the real size and the map of a typeflag S header; takes the extension blocks after it.

        Raises:
            Refusal: A number is none.
            Excess: The extension blocks are too many.
        """
        numbers = list(_parse_pairs(block[_HEADER_PAIRS]))
        is_extended = block[_HEADER_IS_EXTENDED]
        taken = 0
        while is_extended:
            taken = self._counted(taken + BLOCK)
            extension = self._stream.read(BLOCK)
            numbers += _parse_pairs(extension[_EXTENSION_PAIRS])
            is_extended = extension[_EXTENSION_IS_EXTENDED]
        return checked_size(parse_field(block[_HEADER_REAL_SIZE])), _paired(numbers)

    def read_pax(self, records: Records) -> tuple[int, tuple[Extent, ...]] | None:
        """Return the real size and the map that PAX records announce, or None if they announce none.

        Raises:
            Refusal: A number is none, or the format is unknown.
            Excess: The map is too long.
        """
        version = records.get(SPARSE_MAJOR), records.get(SPARSE_MINOR)
        if version not in _VERSIONS:
            raise Refusal("a sparse file is of an unknown format")
        real_size = records.get(SPARSE_REAL_SIZE) or records.get(SPARSE_SIZE)
        if real_size is None:
            if version[0] or SPARSE_MAP in records:
                raise Refusal("a sparse file has no size")
            return None
        size = checked_size(parse_decimal(real_size))
        return size, self._read_leading() if version == _VERSION_1_0 else _listed(records.get(SPARSE_MAP))

    def _read_leading(self) -> tuple[Extent, ...]:
        """Read the map of format 1.0: lines of numbers in whole blocks before the data, how many pairs first."""
        lines: list[bytes] = []
        wanted_lines = 1
        begun = b""
        taken = 0
        while len(lines) < wanted_lines:
            taken = self._counted(taken + BLOCK)
            *ended, begun = (begun + self._stream.read(BLOCK)).split(b"\n")
            lines += ended
            if len(begun) > BLOCK:
                raise Refusal("a sparse map holds no numbers")
            wanted_lines = 1 + 2 * parse_decimal(lines[0]) if lines else 1
        return _paired([parse_decimal(line) for line in lines[1:wanted_lines]])

    def _counted(self, taken: int) -> int:
        if taken > self._max_bytes:
            raise Excess(_LIMIT, self._max_bytes)
        return taken


def checked_extents(extents: Sequence[Extent], *, size_bytes: int, data_bytes: int) -> tuple[Extent, ...]:
    """Return the extents that hold data, if they lie in order inside the file and take all of the data.

    Raises:
        Refusal: They do not: data left over could be read as headers by somebody else.
    """
    end = 0
    for extent in extents:
        if extent.offset < end or extent.length < 0 or extent.offset + extent.length > size_bytes:
            raise Refusal("a sparse map is out of order or goes beyond its file")
        end = extent.offset + extent.length
    if sum(extent.length for extent in extents) != data_bytes:
        raise Refusal("a sparse map does not fit its data")
    return tuple(extent for extent in extents if extent.length)


def _parse_pairs(table: bytes) -> Iterator[int]:
    """Yield offset and length in turn, up to the first empty pair."""
    for start in range(0, len(table), _PAIR_BYTES):
        if table[start] == 0:
            return
        middle = start + _PAIR_BYTES // 2
        yield parse_field(table[start:middle])
        yield parse_field(table[middle : start + _PAIR_BYTES])


def _listed(text: bytes | None) -> tuple[Extent, ...]:
    """Parse the map of format 0.1, numbers between commas; none for a file that is one hole."""
    return _paired([parse_decimal(number) for number in text.split(b",")]) if text else ()


def _paired(numbers: Sequence[int]) -> tuple[Extent, ...]:
    if len(numbers) % 2:
        raise Refusal("a sparse map ends in half a pair")
    return tuple(Extent(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True))
