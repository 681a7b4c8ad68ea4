# SPDX-License-Identifier: Apache-2.0
"""`Recorder`: takes observations in any process of a worker; the process that made it adds them up.

Children send theirs through a socket pair they inherited, a record each: whole or not at all, also from a child that is
killed while it sends. Nothing is addressable from outside and nothing lies on disk.
"""

import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from worker.observer import Metric, Observation

_log = logging.getLogger(__name__)
_RECORD_BYTES = 4096
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Recorder:
    """One worker's way from observations to a tally.

    Args:
        add: Called in the process that made the recorder, from any of its threads.
    """

    def __init__(self, add: Callable[[Observation], None]) -> None:
        self._add = add
        self._home_pid = os.getpid()
        # Not datagrams: of those the kernel queues ten by default. A SEQPACKET's queue is limited by bytes.
        self._reader, self._writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lost = 0
        self._thread = threading.Thread(target=self._receive, name="metrics-recorder", daemon=True)
        self._thread.start()

    def observe(self, observation: Observation) -> None:
        """Take one observation: an `Observe`.

        In a child it is lost, and counted as such, when the main process is so far behind that its queue is full.
        """
        if os.getpid() == self._home_pid:
            self._add(observation)
        else:
            self._send(observation)

    def _send(self, observation: Observation) -> None:
        if self._lost and self._try_send(Observation(Metric.LOST_OBSERVATIONS, self._lost)):
            self._lost = 0
        if not self._try_send(observation):
            self._lost += 1

    def _try_send(self, observation: Observation) -> bool:
        """Hand the record over if that is possible at once."""
        try:
            self._writer.send(_encode(observation), _FLAGS)
        except OSError:
            # The queue is full, or nobody is left to read it.
            return False
        return True

    def _receive(self) -> None:
        # Ends with the process, or with `close`.
        while record := self._reader.recv(_RECORD_BYTES):
            try:
                self._add(_decode(record))
            except (ValueError, TypeError) as error:
                _log.error("a child sent an observation that is none: %s", error)

    def close(self) -> None:
        """Stop receiving; what was sent so far is added."""
        self._writer.shutdown(socket.SHUT_WR)
        self._thread.join()
        self._reader.close()
        self._writer.close()

    def close_in_child(self) -> None:
        """Let go of the end that only the main process reads: when that is gone, sending fails instead of piling up."""
        with suppress(OSError):
            self._reader.close()


def _encode(observation: Observation) -> bytes:
    return json.dumps([observation.metric, observation.value, observation.labels]).encode()


def _decode(record: bytes) -> Observation:
    metric, value, labels = json.loads(record)
    return Observation(Metric(metric), float(value), tuple(map(str, labels)))
