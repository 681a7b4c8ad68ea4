# SPDX-License-Identifier: Apache-2.0
"""What a provision or destroy waits for: shown in the container's state from the moment it has to wait.

Cost: none while nothing is in the way; else a round trip when the wait begins and one when it ends.
"""

import threading
from contextlib import suppress

from typing_extensions import override

from worker.container_id import ContainerId
from worker.containers import Containers
from worker.errors import StateUnavailable
from worker.oci.digest import Digest

CLUSTER_LOCK = "the cluster lock"
CONTAINER = "another task of the container"


def other_pull(diff_id: Digest) -> str:
    """Name the wait for whoever makes the same layer."""
    return f"another pull of layer {diff_id}"


class Waits:
    """Of work that has no container it could be shown in."""

    def begin(self, what: str) -> None:
        """Show it; called again and again while it lasts, from any thread."""

    def end(self, what: str) -> None:
        """Show it no more; nothing happens if it never began."""


NOWHERE = Waits()


class ContainerWaits(Waits):
    """Of work on one container.

    Args:
        generation: Of the container that is provisioned; "" for whichever is destroyed.
    """

    def __init__(self, containers: Containers, container_id: ContainerId, *, generation: str = "") -> None:
        self._containers = containers
        self._container_id = container_id
        self._generation = generation
        self._lock = threading.Lock()
        self._present: dict[str, None] = {}

    @override
    def begin(self, what: str) -> None:
        with self._lock:
            if what not in self._present:
                self._present[what] = None
                self._show()

    @override
    def end(self, what: str) -> None:
        with self._lock:
            if what in self._present:
                del self._present[what]
                self._show()

    def _show(self) -> None:
        with suppress(StateUnavailable):
            self._containers.note_wait(
                self._container_id, generation=self._generation, waits_for=", ".join(self._present)
            )
