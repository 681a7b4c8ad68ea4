# SPDX-License-Identifier: Apache-2.0
"""`Ready` and `Peer`: what is measured, started and idle."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.benchmarks.images import Published
from tests.benchmarks.measuring.processes import Usage


class Ready(Protocol):
    """A program with an empty store, its daemons idle."""

    def provision(self, image: Published) -> Path:
        """Turn the image's reference into a root filesystem and return its path: this is what is timed."""

    def usage(self) -> Usage:
        """Return what its processes have used since they started."""

    def peak_rss_bytes(self) -> int | None:
        """Return the largest resident set of any of its long-lived processes; None if it has none."""


Start = Callable[[Path], AbstractContextManager[Ready]]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Somebody to measure.

    Attributes:
        name: For tables.
        missing: Says why it cannot run here, or None.
        start: Starts it in an empty directory of its own.
        is_ours: Whether it is this project.
        makes_rootfs: Whether it does the whole job.
    """

    name: str
    missing: Callable[[], str | None]
    start: Start
    is_ours: bool = False
    makes_rootfs: bool = True


def usable(peers: Iterable[Peer], say: Callable[[str], None]) -> list[Peer]:
    """Return those that can run here, and say of the others why not."""
    found = []
    for peer in peers:
        if (reason := peer.missing()) is None:
            found.append(peer)
        else:
            say(f"skipped: {peer.name}: {reason}")
    return found
