# SPDX-License-Identifier: Apache-2.0
"""The pieces in which a blob is inflated: every boundary of a piece may fall anywhere in a member."""

import gzip
import random
from collections.abc import Sequence

import pytest

from tests.unit.layers.harness import chunked
from worker.layers.inflate import inflate
from worker.settings import MIB

SIZES = {
    "one member of many pieces": [3 * MIB],
    "small members behind a large one": [MIB, 10, 0, 300, 70_000],
    "members that grow": [2**power for power in range(22)],
    "nothing but members' ends": [0] * 5_000,
}


@pytest.mark.parametrize("chunk_bytes", [1_000, MIB, 8 * MIB])
@pytest.mark.parametrize("zeros", [0, 1, 100_000])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_members_of_any_size_are_inflated_wherever_the_pieces_end(
    sizes: Sequence[int], zeros: int, chunk_bytes: int
) -> None:
    """What no compressor shrinks comes out byte for byte, with zero bytes after each member or none."""
    contents = [random.Random(size).randbytes(size) for size in sizes]
    blob = b"".join(gzip.compress(content, 1) + bytes(zeros) for content in contents[:50])
    blob += b"".join(gzip.compress(content, 1) for content in contents[50:])

    chunks = list(inflate(chunked(blob, chunk_bytes), max_window_bytes=MIB))

    assert b"".join(chunks) == b"".join(contents)
    assert all(0 < len(chunk) <= MIB for chunk in chunks)


def test_a_bomb_comes_in_chunks_of_bounded_size() -> None:
    """A thousandfold ratio makes many chunks, not large ones."""
    blob = gzip.compress(bytes(64 * MIB))

    sizes = [len(chunk) for chunk in inflate(iter([blob]), max_window_bytes=MIB)]

    assert sum(sizes) == 64 * MIB
    assert max(sizes) <= MIB
