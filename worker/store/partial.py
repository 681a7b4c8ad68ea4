# SPDX-License-Identifier: Apache-2.0
"""Partial downloads: what arrived of a large blob outlives the worker it arrived at.

While a blob streams through the layer pipeline its bytes are also appended to `partial/<digest>`. The next attempt at
the same blob replays that file through the pipeline, which verifies it like anything else, and fetches only the rest.

A partial is a cache and no more: written to the page cache without any sync, so that after power loss it may be torn;
given up when the disk is full; used by whoever gets its flock, while others stream without one; and deleted when its
layer is made, when it turns out to be wrong, or when nobody came for it in time.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.linux.flock import FileLock, try_lock
from worker.oci.digest import Digest
from worker.settings import MIB

_CHUNK_BYTES = MIB


class Partial:
    """The kept beginning of one blob, held by its flock.

    Args:
        path: Where it is kept.
        descriptor: Of the file, open for reading and writing; not owned.

    Attributes:
        bytes_kept: How much of the blob there is.
        has_taken_room: Whether it took disk space at any time, which others may have lacked.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.bytes_kept = os.fstat(descriptor).st_size
        self.has_taken_room = self.bytes_kept > 0
        self._path = path
        self._descriptor = descriptor
        self._is_discarded = False

    def replay(self) -> Iterator[bytes]:
        """Yield what is kept, in chunks of 1 MiB."""
        offset, end = 0, self.bytes_kept
        while offset < end and (chunk := os.pread(self._descriptor, min(_CHUNK_BYTES, end - offset), offset)):
            yield chunk
            offset += len(chunk)

    def keeping(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield `chunks`, the blob's from `bytes_kept` on, each after it was appended; without that on a full disk."""
        for chunk in chunks:
            if not self._is_discarded:
                self._append(chunk)
            yield chunk

    def discard(self) -> None:
        """Delete what is kept and keep no more; a second time does nothing."""
        if not self._is_discarded:
            self._is_discarded = True
            self.bytes_kept = 0
            # Unlinked while held: whoever opened it meanwhile notices, see `worker.linux.flock`.
            self._path.unlink(missing_ok=True)

    def _append(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        self.has_taken_room = True
        try:
            while view:
                written = os.pwrite(self._descriptor, view, self.bytes_kept)
                self.bytes_kept += written
                view = view[written:]
        except OSError:
            # What the download itself needs goes before what the next one could use.
            os.ftruncate(self._descriptor, 0)
            self.discard()


class Partials:
    """The shelf of partial downloads.

    Args:
        directory: Exists.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def hold(self, digest: Digest, *, size_bytes: int) -> Iterator[Partial | None]:
        """Hold what is kept of a blob, perhaps nothing yet; None if somebody else does or nothing can be kept.

        Effect: what is there at the end stays, unless it was discarded.
        """
        path = self._directory / str(digest)
        lock = _try_lock(path)
        if lock is None:
            yield None
            return
        with lock:
            partial = Partial(path, lock.descriptor)
            if partial.bytes_kept > size_bytes:
                os.ftruncate(lock.descriptor, 0)
                partial.bytes_kept = 0
            try:
                yield partial
            finally:
                if not partial.bytes_kept:
                    partial.discard()

    def drop(self, digest: Digest) -> None:
        """Delete what is kept of a blob unless somebody holds it."""
        path = self._directory / str(digest)
        lock = _try_lock(path) if path.exists() else None
        if lock is not None:
            with lock:
                path.unlink(missing_ok=True)

    def sweep(self, *, unused_seconds: float) -> int:
        """Delete those that nobody added to within this time and nobody holds, and return the bytes freed."""
        freed_bytes, before = 0, time.time() - unused_seconds
        for path in sorted(self._directory.iterdir()):
            lock = _try_lock(path) if _modified_at(path) < before else None
            if lock is not None:
                with lock:
                    freed_bytes += os.fstat(lock.descriptor).st_size
                    path.unlink(missing_ok=True)
        return freed_bytes


def _try_lock(path: Path) -> FileLock | None:
    try:
        return try_lock(path, exclusive=True)
    except OSError:
        return None


def _modified_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
