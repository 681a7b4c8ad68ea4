# SPDX-License-Identifier: Apache-2.0
"""What one kind of harm at the worst moment led to, as a line of a table."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.integration.chaos.queue_fleet import Site


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of a table.

    Attributes:
        what: What was looked at.
        seen: What was seen.
        is_good: Whether a queue that loses nothing would have shown the same.
    """

    what: str
    seen: str
    is_good: bool


Case = Callable[[Site], Iterator[Finding]]


def out_of(count: int, all_of_them: int) -> str:
    """Return how many, and how many there could have been."""
    return f"{count} of {all_of_them}"
