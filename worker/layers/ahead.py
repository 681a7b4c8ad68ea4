# SPDX-License-Identifier: Apache-2.0
"""`Ahead`: the next chunks are made in a thread of their own while the last ones are used.

Fetching, hashing and inflating leave the interpreter's lock alone, so the stages of one layer run on several cores. It
matters at the end of a pull, when one large layer is all that is left to do.
"""

import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from typing_extensions import override

_DEPTH = 4
_POLL_SECONDS = 0.1


class Ahead(Iterator[bytes]):
    """The chunks of an iterator, up to four ahead of whoever takes them.

    Errors come where the chunk would have come. After the `with` block no thread uses the iterator any more, and what
    it has not yielded by then it still yields to whoever asks it; what was taken ahead is lost.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(maxsize=_DEPTH)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @override
    def __iter__(self) -> Self:
        return self

    @override
    def __next__(self) -> bytes:
        item = self._queue.get()
        if isinstance(item, bytes):
            return item
        # Whoever asks again after the end gets the end again.
        self._queue.put(item)
        raise item

    def _run(self) -> None:
        try:
            for chunk in self._chunks:
                if not self._put(chunk):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that iterates
            self._put(error)
        else:
            self._put(StopIteration())

    def _put(self, item: bytes | BaseException) -> bool:
        """Hand over an item unless nobody will take it."""
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False
