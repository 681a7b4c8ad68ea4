# SPDX-License-Identifier: Apache-2.0
"""HTTP as far as registries need it: requests that follow redirects safely, and replies read under a bound.

urllib3's own redirects and retries are off: they would carry headers to other hosts, and wait where nobody can stop
them.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urljoin

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, ProxyError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeout

from worker.errors import RegistryUnavailable, RegistryUnusable
from worker.registry.endpoints import HostPolicy, Origin
from worker.registry.pools import Pools
from worker.settings import MIB, Settings

CHUNK_BYTES: Final = MIB
MAX_ERROR_BYTES: Final = MIB
MAX_REDIRECTS: Final = 10
USER_AGENT: Final = "rootfs-provisioner"

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MIN_BYTES_PER_SECOND = 256
_DRAIN_BYTES = 64 * 1024
# Python refuses to read numbers of some thousand digits.
_LENGTH = re.compile(r"[0-9]{1,19}")

Authorize = Callable[[Origin], str | None]
"""Gives the Authorization header for an origin, or None."""


def no_authorization(_origin: Origin) -> None:
    """Authorize nothing."""


class Pace:
    """Notices a peer that keeps a connection open by sending next to nothing.

    Args:
        window_seconds: > 0; each window must bring `_MIN_BYTES_PER_SECOND` on average.
        clock: Monotonic seconds.
    """

    def __init__(self, window_seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_seconds = window_seconds
        self._clock = clock
        self._start = clock()
        self._received = 0

    def is_stalled(self, received_bytes: int) -> bool:
        """Count what came in and tell whether the window that just ended brought too little."""
        self._received += received_bytes
        elapsed = self._clock() - self._start
        if elapsed < self._window_seconds:
            return False
        is_too_slow = self._received < elapsed * _MIN_BYTES_PER_SECOND
        self._start += elapsed
        self._received = 0
        return is_too_slow


@dataclass(slots=True, kw_only=True)
class Reply:
    """The answer at the end of the redirects; close it.

    Attributes:
        status: Of the answer.
        headers: Of the answer, by lower-case name, repeated ones joined by commas.
        origin: Who answered.
        authorization: What it was sent, if anything.
    """

    status: int
    headers: Mapping[str, str]
    origin: Origin
    authorization: str | None = field(repr=False)
    _raw: urllib3.BaseHTTPResponse = field(repr=False)
    _pace: Pace = field(repr=False)

    @property
    def content_length(self) -> int | None:
        """The Content-Length header, if it says anything."""
        text = self.headers.get("content-length", "")
        return int(text) if _LENGTH.fullmatch(text) else None

    def header_values(self, name: str) -> list[str]:
        """Return a header's values, one an occurrence."""
        return list(self._raw.headers.getlist(name))

    def read_some(self, max_bytes: int) -> bytes:
        """Return what the connection has next, at most `max_bytes`; nothing at the end.

        Raises:
            RegistryUnavailable: When the connection breaks, falls silent or trickles.
        """
        with _translated(self.origin):
            content: bytes = self._raw.read1(max_bytes, decode_content=False)
        if self._pace.is_stalled(len(content)):
            raise RegistryUnavailable(registry=self.origin.netloc, reason="it sends next to nothing")
        return content

    def read_all(self, max_bytes: int) -> bytes | None:
        """Return the body, or None if it is longer than `max_bytes`; never holds more than that."""
        parts: list[bytes] = []
        room = max_bytes + 1
        if (self.content_length or 0) > max_bytes:
            return None
        while room and (part := self.read_some(min(room, CHUNK_BYTES))):
            parts.append(part)
            room -= len(part)
        return b"".join(parts) if room else None

    def close(self) -> None:
        """Give the connection back if the body was read to its end or is short, else drop it."""
        if (self.content_length or _DRAIN_BYTES) < _DRAIN_BYTES:
            with suppress(RegistryUnavailable):
                self.read_all(_DRAIN_BYTES)
        if not self._raw.closed:
            self._raw.close()
        self._raw.release_conn()


class Channel:
    """Sends requests; safe to share between threads.

    Args:
        settings: Timeouts, insecure registries, certificates, the proxy, how many connections to keep.

    Raises:
        InvalidArgument: A setting is unusable.
    """

    def __init__(self, settings: Settings) -> None:
        # At DEBUG urllib3 logs whole URLs, and a redirect's URL may hold a signature that is as good as a password.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)
        self.policy = HostPolicy(settings.insecure_registries)
        self._timeout_seconds = settings.registry_timeout_seconds
        self._pools = Pools(settings)

    def close(self) -> None:
        """Drop all idle connections."""
        self._pools.close()

    @contextmanager
    def get(self, url: str, *, headers: Mapping[str, str], authorize: Authorize = no_authorization) -> Iterator[Reply]:
        """Follow `url` to the first answer that is no redirect.

        `authorize` is asked anew for every hop, so that what one origin gets never reaches another.

        Raises:
            RegistryUnavailable: No answer.
            RegistryUnusable: No answer for good: a certificate that does not hold, redirects that may not be followed.
        """
        for _ in range(MAX_REDIRECTS + 1):
            reply = self._send("GET", url, headers=headers, authorize=authorize)
            try:
                if reply.status not in _REDIRECTS:
                    yield reply
                    return
                url = self._next_url(url, reply)
            finally:
                reply.close()
        raise RegistryUnusable(registry=reply.origin.netloc, reason=f"it redirects more than {MAX_REDIRECTS} times")

    @contextmanager
    def post(self, url: str, *, body: str, headers: Mapping[str, str]) -> Iterator[Reply]:
        """Send a form, whose redirects are answers like others: they are not followed. Errors as `get`."""
        reply = self._send("POST", url, headers=headers, authorize=no_authorization, body=body)
        try:
            yield reply
        finally:
            reply.close()

    def _next_url(self, url: str, reply: Reply) -> str:
        location = reply.headers.get("location")
        if not location:
            raise RegistryUnusable(registry=reply.origin.netloc, reason="it redirects to nowhere")
        try:
            following = urljoin(url, location)
        except ValueError:
            following = location
        if refusal := self.policy.refusal(following, sender=reply.origin):
            raise RegistryUnusable(registry=reply.origin.netloc, reason=refusal)
        return following

    def _send(
        self, method: str, url: str, *, headers: Mapping[str, str], authorize: Authorize, body: str | None = None
    ) -> Reply:
        origin = Origin.of(url)
        if origin is None:
            raise RegistryUnusable(registry="registry", reason="its address cannot be asked")
        authorization = authorize(origin)
        sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
        if authorization is not None:
            sent["Authorization"] = authorization
        manager = self._pools.manager(origin)
        with _translated(origin):
            raw = manager.request(
                method, url, body=body, headers=sent, preload_content=False, redirect=False, retries=False
            )
        lowered = {name.lower(): value for name, value in raw.headers.items()}
        return Reply(
            status=raw.status,
            headers=lowered,
            origin=origin,
            authorization=authorization,
            _raw=raw,
            _pace=Pace(self._timeout_seconds),
        )


@contextmanager
def _translated(origin: Origin) -> Iterator[None]:
    """Turn urllib3's errors into ours. Its texts may quote URLs, so that they are neither told nor chained."""
    try:
        yield
    except SSLError as error:
        raise _tls_error(origin, str(error)) from None
    except ProxyError:
        raise RegistryUnavailable(registry=origin.netloc, reason="the proxy does not lead to it") from None
    except NewConnectionError as error:
        raise RegistryUnavailable(registry=origin.netloc, reason=_connect_reason(error)) from None
    except HTTPTimeout:
        raise RegistryUnavailable(registry=origin.netloc, reason="it does not answer in time") from None
    except ValueError:
        raise RegistryUnusable(registry=origin.netloc, reason="it leads to a URL that cannot be asked") from None
    except (HTTPError, OSError):
        raise RegistryUnavailable(registry=origin.netloc, reason="the connection broke") from None


def _tls_error(origin: Origin, text: str) -> RegistryUnavailable | RegistryUnusable:
    if "CERTIFICATE_VERIFY_FAILED" in text or "doesn't match" in text:
        return RegistryUnusable(registry=origin.netloc, reason="its certificate is not trusted on this node")
    if "WRONG_VERSION_NUMBER" in text:
        return RegistryUnusable(registry=origin.netloc, reason="it does not speak TLS; is it an insecure registry?")
    return RegistryUnavailable(registry=origin.netloc, reason="TLS failed")


def _connect_reason(error: NewConnectionError) -> str:
    """Say why there is no connection: "Connection refused", "Name or service not known"."""
    cause = error.__cause__
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else "no connection"
