# SPDX-License-Identifier: Apache-2.0
"""Exact reads over chunks of any size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.layers.harness import chunked
from worker.layers.refusal import Refusal
from worker.layers.stream import ByteStream

CONTENT = bytes(range(256)) * 8
STEPS = st.lists(st.tuples(st.sampled_from(["read", "views", "skip", "read_available"]), st.integers(0, 700)))


@given(chunk_bytes=st.integers(1, 3000), steps=STEPS)
def test_every_mix_of_reads_and_skips_sees_the_bytes_in_order(chunk_bytes: int, steps: list[tuple[str, int]]) -> None:
    """Positions advance by what was taken, and the end is told from less."""
    stream = ByteStream(chunked(CONTENT, chunk_bytes))
    position = 0

    for step, count in steps:
        expected = CONTENT[position : position + count]
        if step != "read_available" and len(expected) < count:
            with pytest.raises(Refusal, match="cut off"):
                b"".join(stream.views(count))
            return
        taken = getattr(stream, step)(count)
        assert step == "skip" or b"".join([taken] if isinstance(taken, bytes) else taken) == expected
        position += len(expected)
        assert stream.position == position

    stream.drain()
    assert stream.position == len(CONTENT)


@pytest.mark.parametrize("step", ["read", "skip"])
def test_the_end_before_the_count_is_a_refusal(step: str) -> None:
    """A tar that is cut off."""
    stream = ByteStream(chunked(b"12345", 2))

    with pytest.raises(Refusal, match="cut off"):
        getattr(stream, step)(6)


def test_data_are_handed_out_without_a_copy() -> None:
    """Views of the chunks themselves."""
    chunk = bytes(1000)

    (view,) = ByteStream(iter([chunk])).views(900)

    assert view.obj is chunk
