# SPDX-License-Identifier: Apache-2.0
"""The worker's side of the queue: a kombu transport for Redis that loses nothing.

Schedulers publish with stock Celery: a queue is the list that kombu pushes to. What differs is how a worker consumes::

    channel   the transport, a subclass of kombu's           waits    one connection per queue, on which BLMOVE waits
    sentinel  the same where Sentinel names the master
    ledger    what this process has and has not settled      scripts  the transitions, `worker/lua/queue_*.lua`
    due       when a message wants to be delivered           strays   what was delivered and never heard of
    letters   messages that were laid aside

* At every instant a message is in its queue, in the record of one named consumer, among the delayed or laid aside: each
  move is one command or one script.
* A consumer is a process. It gives a sign of life from the worker's event loop, and keeps what it has for as long as it
  does. Any other one ends it when it is dead: its messages go back, and it is refused from then on.
* A message with an `eta` waits in Redis, not in a worker.
* A message over which too many consumers died, or that nobody can decode or run, is laid aside with the reason.

A task may still run twice: when its worker was taken for dead and was not, or could not acknowledge before it died.
"""

import kombu.transport

from worker.transport.channel import Transport, beat, disconnect, leave
from worker.transport.sentinel import SentinelTransport

__all__ = ["SentinelTransport", "Transport", "beat", "disconnect", "leave", "select"]

_TRANSPORTS = {"redis": Transport, "rediss": Transport, "sentinel": SentinelTransport}


def select() -> None:
    """Make `redis://`, `rediss://` and `sentinel://` mean this transport, in this process.

    In kombu's own table, and not by Celery's option `broker_transport`, which would change the URL that the broker is
    shown by: Flower looks for the scheme in it, and `celery inspect stats` and logs are read by people.
    """
    for scheme, transport in _TRANSPORTS.items():
        kombu.transport.TRANSPORT_ALIASES[scheme] = f"{__name__}:{transport.__name__}"
        kombu.transport._transport_cache.pop(scheme, None)  # noqa: SLF001 - else an earlier answer stays
