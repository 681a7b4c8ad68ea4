# SPDX-License-Identifier: Apache-2.0
"""A large blob over several connections, where one is too slow for its reader.

It begins as one stream. When `pacing` wants more, the stream is left where it is and the blob goes on in segments,
fetched side by side and delivered in order. Whatever is odd about a segment, one stream takes over again from the byte
that was reached: it is patient, knows how to go on without ranges, and says what is wrong.

Fairness: every layer has one connection of its own; further ones are shared by all layers of an image, borrowed for one
segment at a time. Memory: a segment for each connection, and one more.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from worker.errors import ProvisionerError
from worker.registry.blobs import BlobStream
from worker.registry.pacing import Meter, Plan
from worker.settings import MIB

SEGMENT_BYTES: Final = 4 * MIB

_MAX_TROUBLES = 2

Fetch = Callable[[int, int, Callable[[], bool]], list[bytes] | None]
"""Fetches the bytes from one offset to before another, while they are wanted; None if it does not get these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangePolicy:
    """When a blob may use several connections.

    Attributes:
        most: Connections of one blob, >= 1.
        min_bytes: So much of it must be missing.
    """

    most: int
    min_bytes: int


class ExtraConnections:
    """Connections that an image's layers borrow from each other; safe to share between threads.

    Args:
        count: How many there are, >= 0.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._lock = threading.Lock()

    @property
    def are_free(self) -> bool:
        """Whether there is one, at this moment."""
        return self._free > 0

    def try_take(self) -> bool:
        """Borrow one if there is one."""
        with self._lock:
            self._free -= (is_free := self._free > 0)
        return is_free

    def give_back(self) -> None:
        """Return one."""
        with self._lock:
            self._free += 1


class RangedBlob:
    """Reads one blob, with as many connections as help; for one reader.

    Args:
        stream: The blob as one stream.
        size_bytes: Of the whole blob.
        most: Connections it may use at a time, >= 1.
        extras: Where it borrows all but the first.
    """

    def __init__(self, stream: BlobStream, *, size_bytes: int, most: int, extras: ExtraConnections) -> None:
        self._stream = stream
        self._size_bytes = size_bytes
        self._most = most
        self._extras = extras
        self._offset = 0
        self._meter = Meter()
        self._plan = Plan()
        self._troubles = 0

    def chunks(self, offset: int = 0) -> Generator[bytes, None, None]:
        """Yield the blob from `offset` in chunks of about 1 MiB; raises as `BlobStream.chunks`."""
        self._offset = offset
        while not (yield from self._single()):
            yield from self._several()

    def _single(self) -> Generator[bytes, None, bool]:
        """Yield from one stream; true at the end of the blob, false when more connections are wanted."""
        with closing(self._stream.chunks(self._offset)) as chunks:
            first = next(chunks, None)
            if first is None:
                return True
            # The first chunk's time is that of connecting.
            self._meter.restart()
            chunk: bytes | None = first
            while chunk is not None:
                self._offset += len(chunk)
                self._meter.add(len(chunk))
                yield chunk
                if self._wants_several():
                    return False
                with self._meter.waiting():
                    chunk = next(chunks, None)
        return True

    def _wants_several(self) -> bool:
        if self._most == 1 or self._size_bytes - self._offset < 2 * SEGMENT_BYTES:
            return False
        if self._extras.are_free:
            self._revise()
        else:
            self._meter.restart()
        return self._plan.connections > 1

    def _revise(self) -> None:
        if (measure := self._meter.measure()) is not None:
            self._plan = self._plan.revised(measure, most=self._most)

    def _several(self) -> Generator[bytes, None, None]:
        """Yield segments, until the end, trouble, or until one connection is found to do."""
        flights = _Flights(self._fetch, start=self._offset, end=self._size_bytes, most=self._most, extras=self._extras)
        with closing(flights):
            while self._plan.connections > 1 or flights.are_under_way:
                flights.launch(self._plan.connections)
                if not flights.are_under_way:
                    return
                chunks = self._landed(flights)
                while chunks:
                    self._offset += len(chunks[0])
                    yield chunks.pop(0)
                    flights.launch(self._plan.connections)
                if chunks is None:
                    self._note_trouble()
                    return
                self._judge(flights)

    def _landed(self, flights: "_Flights") -> list[bytes] | None:
        """Wait for the next segment; None if it did not come as it should."""
        with self._meter.waiting():
            try:
                chunks = flights.land(self._plan.connections)
            except ProvisionerError:
                return None
        if chunks is None:
            self._most = 1
        return chunks

    def _note_trouble(self) -> None:
        self._troubles += 1
        self._plan = Plan()
        if self._troubles >= _MAX_TROUBLES:
            self._most = 1

    def _judge(self, flights: "_Flights") -> None:
        if flights.was_refused:
            # With fewer connections than planned, the window says nothing about the plan.
            flights.was_refused = False
            self._meter.restart()
        self._revise()

    def _fetch(self, start: int, end: int, is_wanted: Callable[[], bool]) -> list[bytes] | None:
        def take(count: int) -> bool:
            self._meter.add(count)
            return is_wanted()

        return self._stream.segment(start, end, take=take)


class _Flights:
    """Segments on their way, in order.

    Attributes:
        was_refused: No connection was free for a segment that should have been launched.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        start: int,
        end: int,
        most: int,
        extras: ExtraConnections,
    ) -> None:
        self.was_refused = False
        self._fetch = fetch
        self._next_start = start
        self._end = end
        self._extras = extras
        self._flights: deque[Future[list[bytes] | None]] = deque()
        self._lock = threading.Lock()
        self._running = 0
        self._is_closed = False
        self._executor = ThreadPoolExecutor(most, thread_name_prefix="range")

    @property
    def are_under_way(self) -> bool:
        """Whether there is a segment to wait for."""
        return bool(self._flights)

    def launch(self, connections: int) -> None:
        """Start segments until so many connections are busy, or one segment more waits to be delivered."""
        if connections == 1:
            return
        while self._next_start < self._end and len(self._flights) <= connections and self._start(connections):
            start, end = self._next_start, min(self._next_start + SEGMENT_BYTES, self._end)
            self._flights.append(self._executor.submit(self._run, start, end))
            self._next_start = end

    def land(self, connections: int) -> list[bytes] | None:
        """Wait for the first segment, launching others meanwhile; raises what its fetch raised."""
        while not self._flights[0].done():
            wait([flight for flight in self._flights if not flight.done()], return_when=FIRST_COMPLETED)
            self.launch(connections)
        return self._flights.popleft().result()

    def close(self) -> None:
        """Abandon what is under way: its threads notice with the next bytes, and nobody waits for them."""
        self._is_closed = True
        for flight in self._flights:
            if flight.cancel():
                self._finish()
        self._executor.shutdown(wait=False)

    def _run(self, start: int, end: int) -> list[bytes] | None:
        try:
            return self._fetch(start, end, lambda: not self._is_closed)
        finally:
            self._finish()

    def _start(self, connections: int) -> bool:
        """Take a connection: the first is the blob's own, further ones are borrowed."""
        with self._lock:
            if self._running >= connections:
                return False
            if self._running and not self._extras.try_take():
                self.was_refused = True
                return False
            self._running += 1
            return True

    def _finish(self) -> None:
        with self._lock:
            self._running -= 1
            if self._running:
                self._extras.give_back()
