# SPDX-License-Identifier: Apache-2.0
"""What bzip2 and xz come to, whole and damaged."""

import bz2
import itertools
import lzma
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest

from worker.layers.refusal import Refusal
from worker.pullers.appc.inflate import inflate_aci

CONTENT = bytes(range(256)) * 4000
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {"bzip2": bz2.compress, "xz": lzma.compress}


def inflated(content: bytes, *, chunk_bytes: int = 1000) -> bytes:
    """Inflate content that comes in chunks."""
    return b"".join(inflate_aci(chunked(content, chunk_bytes), max_window_bytes=1 << 20))


def chunked(content: bytes, chunk_bytes: int) -> Iterator[bytes]:
    """Cut content into chunks."""
    return (content[start : start + chunk_bytes] for start in range(0, len(content), chunk_bytes))


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("chunk_bytes", [1, 7, 1000, 1 << 20])
def test_streams_come_to_what_they_were_made_of(name: str, chunk_bytes: int) -> None:
    """One or several after each other, whatever the chunks."""
    stream = COMPRESSORS[name](CONTENT[:5000])

    assert inflated(stream, chunk_bytes=chunk_bytes) == CONTENT[:5000]
    assert inflated(stream * 3, chunk_bytes=chunk_bytes) == CONTENT[:5000] * 3


def test_xz_may_be_padded() -> None:
    """Between and after streams. Source: The .xz File Format 1.2.1, section 2.2."""
    stream = lzma.compress(CONTENT)

    assert inflated(stream + bytes(8) + stream + bytes(4)) == CONTENT * 2


@pytest.mark.parametrize("name", COMPRESSORS)
def test_damage_is_refused(name: str) -> None:
    """Cut off anywhere, flipped in the middle, followed by something else."""
    stream = COMPRESSORS[name](CONTENT)
    middle = len(stream) // 2

    for end in (20, middle, len(stream) - 1):
        with pytest.raises(Refusal, match="cut off"):
            inflated(stream[:end])
    flipped = stream[:middle] + bytes([stream[middle] ^ 0xFF]) + stream[middle + 1 :]
    for damaged in (flipped, stream + b"rubbish that is no stream"):
        with pytest.raises(Refusal, match="corrupt"):
            inflated(damaged)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_bomb_takes_no_memory(name: str) -> None:
    """Chunks are bounded whatever the ratio."""
    bomb = COMPRESSORS[name](bytes(50_000_000))
    tracemalloc.start()

    sizes = [len(chunk) for chunk in inflate_aci(iter([bomb]), max_window_bytes=1 << 20)]

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= 256 * 1024
    assert peak < 20_000_000


def test_xz_that_asks_for_too_much_memory_is_refused() -> None:
    """`xz -9` needs 65 MiB and passes; four gigabytes are in a header within a moment."""
    stream = bytearray(lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "preset": 9}]))
    assert inflated(bytes(stream)) == b"x"

    # The size of the dictionary is one byte of the block's header, which a CRC-32 ends.
    header_start, header_bytes = 12, (stream[12] + 1) * 4
    stream[stream.index(b"\x21\x01", header_start) + 2] = 40
    checksum_start = header_start + header_bytes - 4
    stream[checksum_start : checksum_start + 4] = zlib.crc32(stream[header_start:checksum_start]).to_bytes(4, "little")

    with pytest.raises(Refusal, match="corrupt: Memory usage limit"):
        inflated(bytes(stream))


def test_other_compressions_are_those_of_layers() -> None:
    """And what is not compressed passes."""
    assert inflated(b"ustar" * 100) == b"ustar" * 100
    assert list(itertools.chain(inflate_aci(iter(()), max_window_bytes=1))) == []
