# SPDX-License-Identifier: Apache-2.0
"""Redis behind Sentinel: the URL as kombu and Celery spell it, and connections that find the present master.

A connection asks the sentinels where the master is whenever it is made, so all that is needed after a failover is that
the old one is lost; redis-py also drops one whose server turns out to be a replica by now.
"""

from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import SplitResult, unquote, urlsplit

import redis
from redis.sentinel import Sentinel

SCHEME = "sentinel"
_DEFAULT_PORT = 26379
_FORM = "must be sentinel://[[user]:password@]host[:port][/db], one for each sentinel, joined by ;"
# A sentinel answers at once or is dead, and then another one is asked: all of them fit into a command's own time.
_ASK_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelUrl:
    """`sentinel://[[user]:password@]host[:port][/db]`, one for each sentinel, joined by `;`.

    kombu and Celery take the credentials, which are the master's, and the database from one of the parts: which one
    changes when a connection fails. So every part has to say the same.

    Attributes:
        addresses: Host and port of each sentinel, at least one.
        username: The master's, or None.
        password: The master's, or None.
        db: Number of the database.
    """

    addresses: tuple[tuple[str, int], ...]
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse a URL. Raises ValueError with a reason that shows nothing of it."""
        parts = [_split(part) for part in url.split(";")]
        first = parts[0]
        if any(_shared(part) != _shared(first) for part in parts):
            raise ValueError("every sentinel:// of it needs the same user, password and /db: any may be the one used")
        username, password, db = _shared(first)
        addresses = tuple((part.hostname or "", part.port or _DEFAULT_PORT) for part in parts)
        return cls(addresses=addresses, username=username, password=password, db=db)


def is_sentinel(url: str) -> bool:
    """Tell whether a URL names sentinels."""
    return url.startswith(f"{SCHEME}://")


def _split(part: str) -> SplitResult:
    try:
        split = urlsplit(part)
        is_whole = split.scheme == SCHEME and split.hostname and split.port != 0
    except ValueError:
        # Its text may show the password.
        raise ValueError(_FORM) from None
    if not is_whole or split.query or split.fragment:
        raise ValueError(_FORM)
    return split


def _shared(part: SplitResult) -> tuple[str | None, str | None, int]:
    db = part.path.removeprefix("/") or "0"
    if not (db.isascii() and db.isdigit()):
        raise ValueError("what follows the / must be the number of the database")
    username, password = (unquote(word) if word else None for word in (part.username, part.password))
    return username, password, int(db)


def connect(url: str, master: str, *, timeout_seconds: float, **options: Any) -> redis.Redis:
    """Return a client of the master, whichever server that is at the time.

    Args:
        url: As in `SentinelUrl`.
        master: Its name among the sentinels.
        timeout_seconds: Of a command, and of the sentinels' answer at most.
        options: Of the connections to the master.
    """
    parsed = SentinelUrl.parse(url)
    credentials = {"username": parsed.username, "password": parsed.password, "db": parsed.db}
    ask = _ask_options(timeout_seconds)
    sentinel = Sentinel(list(parsed.addresses), sentinel_kwargs=ask)  # type: ignore[no-untyped-call]
    client: redis.Redis = sentinel.master_for(master, **credentials, **options)  # type: ignore[no-untyped-call]
    return client


def celery_options(url: str, master: str, *, timeout_seconds: float) -> dict[str, Any]:
    """Return the transport options of broker and result backend by which they find the master; none without Sentinel.

    NOTE: without `sentinel_kwargs` Celery's result backend waits for a silent sentinel for ever.
    """
    if not is_sentinel(url):
        return {}
    return {"master_name": master, "sentinel_kwargs": _ask_options(timeout_seconds)}


def _ask_options(timeout_seconds: float) -> dict[str, Any]:
    """Bound a question to a sentinel: by default redis-py asks a dead one ten times more, and others are there."""
    seconds = min(timeout_seconds, _ASK_SECONDS)
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": None}
