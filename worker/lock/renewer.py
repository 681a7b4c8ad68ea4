# SPDX-License-Identifier: Apache-2.0
"""One thread per process that keeps its leases alive: one round trip per lock, however many leases.

It holds leases weakly: one that its owner dropped without releasing, say because a signal's exception came between, is
renewed no more and lapses. After a fork the child begins without leases and without a thread.
"""

import logging
import os
import threading
import weakref
from collections import defaultdict
from collections.abc import Sequence

from worker.errors import StateUnavailable
from worker.lock.lease import Lease, elapsed
from worker.lock.scripts import LockScripts

_log = logging.getLogger(__name__)

# Parts of a lease between renewals, and between attempts while they fail.
_INTERVAL = 1 / 3
_RETRY_INTERVAL = 1 / 15
_NEVER = float("inf")


class Renewer:
    """Renews the leases added to it until they are over."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._leases: weakref.WeakSet[Lease] = weakref.WeakSet()
        self._due_at: dict[LockScripts, float] = {}
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None

    def add(self, lease: Lease) -> None:
        """Keep the lease renewed from now on. No round trip."""
        due_at = elapsed() + lease.scripts.lease_seconds * _INTERVAL
        with self._changed:
            self._leases.add(lease)
            self._due_at.setdefault(lease.scripts, due_at)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="lock-renewer", daemon=True)
                self._thread.start()
            elif due_at < self._wakes_at:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            self._renew_due()

    def _renew_due(self) -> None:
        """Sleep until a lock is due, and renew. A loop around this body would keep its last leases while it sleeps."""
        for scripts, leases in self._wait():
            try:
                self._renew(scripts, leases)
            except Exception:  # noqa: BLE001 - the thread serves all locks of the process, and must not end for one
                _log.exception("renewing %d leases failed", len(leases))
                self._retry_soon(scripts)

    def _wait(self) -> list[tuple[LockScripts, list[Lease]]]:
        """Sleep until a lock is due; return the due locks with the leases held on them."""
        with self._changed:
            self._wakes_at = min(self._due_at.values(), default=_NEVER)
            if (delay := self._wakes_at - elapsed()) > 0:
                self._changed.wait(None if delay == _NEVER else delay)
            now = elapsed()
            held = defaultdict(list)
            for lease in self._leases:
                if not lease.is_over:
                    held[lease.scripts].append(lease)
            due = [scripts for scripts, due_at in self._due_at.items() if due_at <= now]
            for scripts in due:
                if scripts in held:
                    self._due_at[scripts] = now + scripts.lease_seconds * _INTERVAL
                else:
                    del self._due_at[scripts]
            return [(scripts, held[scripts]) for scripts in due if scripts in held]

    def _renew(self, scripts: LockScripts, leases: Sequence[Lease]) -> None:
        sent_at = elapsed()
        try:
            seconds_left = scripts.renew([(lease.mode, lease.owner) for lease in leases])
        except StateUnavailable as error:
            _log.warning("renewing %d leases failed: %s", len(leases), error)
            self._retry_soon(scripts)
            return
        for lease, seconds in zip(leases, seconds_left, strict=True):
            if seconds > 0:
                lease.renewed(sent_at=sent_at, seconds=seconds)
            elif not lease.is_over:
                lease.lose("it lapsed, or Redis lost it")

    def _retry_soon(self, scripts: LockScripts) -> None:
        with self._changed:
            self._due_at[scripts] = elapsed() + scripts.lease_seconds * _RETRY_INTERVAL


_renewer = Renewer()


def process_renewer() -> Renewer:
    """Return the renewer of this process."""
    return _renewer


def _forget_parent() -> None:
    global _renewer  # noqa: PLW0603 - the thread and its locks did not survive the fork
    _renewer = Renewer()


os.register_at_fork(after_in_child=_forget_parent)
