# SPDX-License-Identifier: Apache-2.0
"""Chunks made ahead are the same chunks, and errors come where they would have come."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.layers.ahead import Ahead


@given(st.lists(st.binary(max_size=20), max_size=30))
def test_the_same_chunks_come_in_order(chunks: list[bytes]) -> None:
    """However many there are; and after the end comes the end."""
    with Ahead(iter(chunks)) as ahead:
        assert list(ahead) == chunks
        assert list(ahead) == []


def test_an_error_comes_after_the_chunks_before_it() -> None:
    """As without the thread, and again for whoever asks again."""

    def broken() -> Iterator[bytes]:
        yield b"a"
        raise ValueError("broken")

    with Ahead(broken()) as ahead:
        assert next(ahead) == b"a"
        for _ in range(2):
            with pytest.raises(ValueError, match="broken"):
                next(ahead)


def test_leaving_early_ends_the_thread_and_keeps_the_rest() -> None:
    """What was not taken ahead can still be drained: a damaged blob is blamed before its content."""
    source = iter([bytes([number]) for number in range(100)])

    with Ahead(source) as ahead:
        assert next(ahead) == b"\0"

    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]
    rest = list(source)
    assert 90 <= len(rest) < 100
    assert rest[-1] == bytes([99])
