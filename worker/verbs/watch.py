# SPDX-License-Identifier: Apache-2.0
"""`DestroyWatch`: lets a pull under way notice that its container is being destroyed, and be noticed."""

import threading
import time
from contextlib import suppress

from worker.container_id import ContainerId
from worker.containers import Containers
from worker.errors import ContainerDestroying, StateUnavailable

_INTERVAL_SECONDS = 0.5
_SIGN_SECONDS = 5.0


class DestroyWatch:
    """Asks Redis at most twice a second, however often and from however many threads it is checked."""

    def __init__(self, containers: Containers, container_id: ContainerId, *, generation: str) -> None:
        self._containers = containers
        self._container_id = container_id
        self._generation = generation
        self._lock = threading.Lock()
        self._next = 0.0
        self._next_sign = time.monotonic() + _SIGN_SECONDS

    def check(self) -> None:
        """Raise ContainerDestroying once a destroy was begun, or is done; without Redis nobody can have begun one.

        A hash that Redis lost looks like a container that is gone. The pull then ends early, and the disk says which.
        """
        now = time.monotonic()
        with self._lock:
            if now < self._next:
                return
            self._next = now + _INTERVAL_SECONDS
            is_sign_due = now >= self._next_sign
            if is_sign_due:
                self._next_sign = now + _SIGN_SECONDS
        ask = self._containers.note_alive if is_sign_due else self._containers.is_current
        with suppress(StateUnavailable):
            if not ask(self._container_id, generation=self._generation):
                raise ContainerDestroying(container_id=str(self._container_id))
