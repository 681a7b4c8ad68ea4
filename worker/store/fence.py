# SPDX-License-Identifier: Apache-2.0
"""The fence under the cluster lock: the kernel's flock and the highest tokens seen.

A lease in Redis can lapse while its holder is paused, and Redis can lose it. What must never overlap therefore also
holds this flock, which the kernel releases when the holder dies and, on a local filesystem, never before::

    reader R                      Redis                     writer W
    granted token 7
    (paused for a minute)         R's lease lapses
                                  W granted token 8
    still holds flock, shared                               waits for flock, exclusive
    resumes, mounts, unlocks
                                                            gets flock, sees R's mount, prunes

Tokens refuse what comes late instead: a reader older than a writer that was here, a writer older than anybody. They
are compared when a section is entered; inside it the flock is what holds. A filesystem that can take a flock away from
a living holder, as NFSv4 does when the client's lease at its server has expired, is guarded by no more than
`Lease.check` before the renames of a prune or a repair.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.errors import LeaseLost
from worker.linux.flock import locked
from worker.paths import StorePaths

_TOKENS = struct.Struct("<QQ")


class Fence:
    """Orders access to one store by flock and tokens."""

    def __init__(self, paths: StorePaths) -> None:
        self._lock_path = paths.lock_path
        self._token_path = paths.lock_path.with_name("token")

    @contextmanager
    def shared(self, *, token: int, timeout_seconds: float | None = None) -> Iterator[None]:
        """Hold the fence together with other readers.

        Raises:
            LeaseLost: A writer with a higher token was here: the caller's lease has lapsed.
            LockTimeout: A writer holds the fence for longer than `timeout_seconds`.
        """
        with locked(self._lock_path, exclusive=False, timeout_seconds=timeout_seconds):
            self._admit(token, is_exclusive=False, timeout_seconds=timeout_seconds)
            yield

    @contextmanager
    def exclusive(self, *, token: int, timeout_seconds: float | None = None) -> Iterator[None]:
        """Hold the fence alone.

        Raises:
            LeaseLost: Somebody with a higher token was here.
            LockTimeout: Others hold the fence for longer than `timeout_seconds`.
        """
        with locked(self._lock_path, exclusive=True, timeout_seconds=timeout_seconds):
            self._admit(token, is_exclusive=True, timeout_seconds=timeout_seconds)
            yield

    def highest_token(self) -> int:
        """Return the highest token seen, 0 for none: no lower one may be granted any more."""
        try:
            return max(_unpack(self._token_path.read_bytes()))
        except FileNotFoundError:
            return 0

    def _admit(self, token: int, *, is_exclusive: bool, timeout_seconds: float | None) -> None:
        """Refuse a token that is too old, remember one that is new."""
        with locked(self._token_path, exclusive=True, timeout_seconds=timeout_seconds):
            seen, writer = _unpack(self._token_path.read_bytes())
            if token < (seen if is_exclusive else writer):
                reason = f"token {token} is older than {max(seen, writer)}"
                raise LeaseLost(lock=str(self._lock_path), owner=str(token), reason=reason)
            _store(self._token_path, max(seen, token), token if is_exclusive else writer)


def _unpack(content: bytes) -> tuple[int, int]:
    """Decode (highest token, highest exclusive token); a file cut short by a crash counts as new."""
    if len(content) != _TOKENS.size:
        return 0, 0
    seen, writer = _TOKENS.unpack(content)
    return seen, writer


def _store(path: Path, seen: int, writer: int) -> None:
    """Overwrite in place: 16 bytes in one block are written whole, and losing them at power loss loses no holder."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, _TOKENS.pack(seen, writer), 0)
    finally:
        os.close(descriptor)
