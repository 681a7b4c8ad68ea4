# SPDX-License-Identifier: Apache-2.0
"""Retries wait as long as they should."""

from hypothesis import given
from hypothesis import strategies as st

from tasks.base import retry_delay
from worker.errors import RegistryUnavailable


@given(retries=st.integers(0, 60), asked=st.none() | st.floats(0, 500))
def test_a_delay_grows_is_bounded_and_honours_the_server(retries: int, asked: float | None) -> None:
    """Between half and all of the backoff, and never less than Retry-After."""
    error = RegistryUnavailable(registry="r", reason="busy")
    error.retry_after_seconds = asked

    delay = retry_delay(retries, base=1.0, longest=60.0, error=error)

    backoff = min(60.0, 2.0**retries)
    assert max(backoff / 2, asked or 0.0) <= delay <= max(backoff, asked or 0.0)
