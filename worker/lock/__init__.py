# SPDX-License-Identifier: Apache-2.0
"""The cluster read-write lock: fair, leased, fenced and woken. Usable without the rest of the provisioner.

Use::

    lock = ReadWriteLock(client, "{jobs}:lock:warehouse", token_floor=warehouse.highest_token)
    with lock.exclusive(timeout_seconds=60) as lease:
        lease.check()
        warehouse.sweep(lease.token)

Promises
    *Order.* First come, first served: shared holders that arrive together hold together, nobody overtakes a waiting
    exclusive, a dead waiter loses its place after at most two thirds of a lease.

    *Leases.* A lock is held for `lease_seconds` and renewed at a third of it. A lease that lapsed never comes back,
    and its holder is told so by `Lease.check`, which needs nobody's help: it goes by the holder's own clock.

    *Tokens.* `Lease.token` grows with every change between shared and exclusive and with every exclusive grant, also
    after Redis lost its data. A resource that remembers the highest token it has seen, and refuses lower ones in the
    same step as each change or under a lock of its own such as a flock, is safe from holders that stopped for too long
    between their check and their act. That is its fence; no lock is safe without one.

    *Quarantine.* When Redis restarted, failed over or came back empty it may have forgotten a holder: nobody is granted
    exclusive use before that holder's lease has lapsed. Shared use is granted at once; the holder that may have been
    forgotten was shared or, rarely, exclusive, and is then kept apart by the fence alone.

    *Repetition.* redis-py sends a command again when its reply was lost. Every transition is one script that may run
    twice; a released owner's late acquire is refused.

    *Cost.* One round trip to acquire, one to release, one per lock and third of a lease for all leases of a process. A
    waiter sleeps on a list and asks again at most every third of a lease.

Limits
    Not reentrant. No upgrade from shared to exclusive. Renewals of several locks wait for each other in one thread.
    A Redis that evicts keys breaks it; one that was failed over and goes on granting beside its successor is kept apart
    by the fence alone, and `min-replicas-to-write` shortens that. The scripts need the permission to call INFO.

Considered and left out
    One shared lease per process, kept between tasks and drained when an exclusive waits: it would save the two round
    trips (0.2 ms together) of a task that takes 10 ms, at the price of a listening connection per process, of idle
    processes that make every exclusive wait for them, and of a dead idle process that blocks it for a whole lease.
"""

from worker.lock.lease import Lease
from worker.lock.mode import LockMode
from worker.lock.readwrite import ReadWriteLock
from worker.lock.view import LockView, Party

__all__ = ["Lease", "LockMode", "LockView", "Party", "ReadWriteLock"]
