# SPDX-License-Identifier: Apache-2.0
"""What is in a consumer's records and nobody here has heard of: the reply that named it was lost, or is late."""

import time
from collections import Counter, deque

from worker.transport.scripts import Delivery

_REMEMBERED = 100


class Strays:
    """Tells the lost ones from those that are on their way, and remembers which were given back."""

    def __init__(self) -> None:
        self._suspects: Counter[Delivery] = Counter()
        self._returned: deque[tuple[float, Delivery]] = deque(maxlen=_REMEMBERED)

    def __bool__(self) -> bool:
        return bool(self._suspects)

    def clear(self) -> None:
        """Suspect nothing any more."""
        self._suspects.clear()

    def lost(self, unheard_of: Counter[Delivery]) -> Counter[Delivery]:
        """Return what was unheard of the last time too, and is to be given back now."""
        lost, self._suspects = unheard_of & self._suspects, unheard_of - self._suspects
        now = time.monotonic()
        self._returned.extend((now, delivery) for delivery in lost.elements())
        return lost

    def is_dubious(self, delivery: Delivery, *, sent_at: float) -> bool:
        """Tell whether a reply may be late: what it brings was given back since it was asked for.

        Or it brings the same message anew, which came to the wait that was out as it went back.
        """
        return any(returned == delivery and sent_at < returned_at for returned_at, returned in self._returned)
