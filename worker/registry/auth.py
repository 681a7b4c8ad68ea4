# SPDX-License-Identifier: Apache-2.0
"""Answers to a registry's challenges: basic authentication and bearer tokens.

Source: distribution, docs/spec/auth/token.md and oauth.md.
"""

import base64
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from worker.errors import AccessDenied, RegistryUnavailable, RegistryUnusable
from worker.registry.challenge import Challenge, Scheme
from worker.registry.channel import Channel, Reply
from worker.registry.endpoints import Origin
from worker.registry.retries import is_transient, retry_after_seconds
from worker.settings import MIB

MAX_TOKEN_BYTES: Final = MIB
DEFAULT_EXPIRY_SECONDS: Final = 60.0
MAX_EXPIRY_SECONDS: Final = 86400.0
"""More than this is taken for this."""

_OK = 200
_REFUSALS = frozenset({400, 401, 403, 404})
_EXPIRY_MARGIN_SECONDS = 5.0
_CLIENT_ID = "rootfs-provisioner"
# A token goes into a header; anything else in it could split the header or end up in an exception's text.
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}")


@dataclass(frozen=True, slots=True)
class Login:
    """What one registry knows us by; never printed.

    Attributes:
        username: With `password`, for basic authentication and to get tokens.
        password: See there.
        identity_token: A refresh token, instead of the two.
    """

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str | None = field(default=None, repr=False)

    @property
    def basic(self) -> str | None:
        """The Authorization header of basic authentication, or None if the login has no user name."""
        if not self.username:
            return None
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class _Token:
    header: str = field(repr=False)
    expires_at: float


class Authorizer:
    """Keeps what each origin was told to want, and tokens until they expire; safe to share between threads.

    Args:
        channel: For the token servers.
        image: Named in errors.
        home: The registry's own origin: only its challenges are answered with `login`, others anonymously.
        login: What the registry knows us by, or None.
        default_scope: For challenges that name none.
        clock: Monotonic seconds.
    """

    def __init__(  # noqa: PLR0913 - one of them is for tests only
        self,
        channel: Channel,
        *,
        image: str,
        home: Origin,
        login: Login | None,
        default_scope: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channel = channel
        self._image = image
        self._home = home
        self._login = login
        self._default_scope = default_scope
        self._clock = clock
        self._mutex = threading.Lock()
        self._challenges: dict[Origin, Challenge] = {}
        self._tokens: dict[tuple[Origin, Challenge], _Token] = {}
        self._is_login_given = False

    @property
    def is_login_given(self) -> bool:
        """Whether a challenge was answered with the login: as far as anybody can tell, it was needed."""
        return self._is_login_given

    def header(self, origin: Origin) -> str | None:
        """Return the Authorization header for `origin`; None as long as it did not ask for any.

        Raises:
            AccessDenied: The token server refuses.
            RegistryUnavailable: The token server cannot be reached or answers 429 or 5xx.
            RegistryUnusable: The token server breaks its specification or may not be asked.
        """
        with self._mutex:
            challenge = self._challenges.get(origin)
            return None if challenge is None else self._answer(origin, challenge)

    def accept(self, origin: Origin, challenge: Challenge, *, rejected: str | None) -> None:
        """Take note of a 401, after which `header` answers `challenge`.

        Args:
            origin: Who sent it.
            challenge: What it wants.
            rejected: The header it did not take. If it still is the current one, it is forgotten; if not, another
                thread already got a new one.
        """
        with self._mutex:
            self._challenges[origin] = challenge
            token = self._tokens.get((origin, challenge))
            if token is not None and token.header == rejected:
                del self._tokens[origin, challenge]

    def _answer(self, origin: Origin, challenge: Challenge) -> str | None:
        login = self._login if origin == self._home else None
        self._is_login_given |= login is not None
        if challenge.scheme is Scheme.BASIC:
            return login.basic if login else None
        token = self._tokens.get((origin, challenge))
        if token is None or token.expires_at <= self._clock():
            token = self._tokens[origin, challenge] = self._fetch_token(origin, challenge, login)
        return token.header

    def _fetch_token(self, origin: Origin, challenge: Challenge, login: Login | None) -> _Token:
        if refusal := self._channel.policy.refusal(challenge.realm, sender=origin):
            raise RegistryUnusable(registry=origin.netloc, reason=f"for its tokens {refusal}")
        with self._ask(challenge, login) as reply:
            self._check(reply)
            content = reply.read_all(MAX_TOKEN_BYTES)
            return self._parse_token(content, server=reply.origin.netloc)

    def _ask(self, challenge: Challenge, login: Login | None) -> AbstractContextManager[Reply]:
        scope = challenge.scope or self._default_scope
        if login and login.identity_token:
            form = {
                "grant_type": "refresh_token",
                "service": challenge.service,
                "client_id": _CLIENT_ID,
                "scope": scope,
            }
            body = urlencode({**form, "refresh_token": login.identity_token})
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return self._channel.post(challenge.realm, body=body, headers=headers)
        url = token_url(challenge, scope=scope)
        realm = Origin.of(url)
        basic = login.basic if login else None
        return self._channel.get(url, headers={}, authorize=lambda origin: basic if origin == realm else None)

    def _check(self, reply: Reply) -> None:
        server = reply.origin.netloc
        if is_transient(reply.status):
            raise RegistryUnavailable(
                registry=server,
                reason=f"its token server answers {reply.status}",
                retry_after_seconds=retry_after_seconds(reply.headers.get("retry-after")),
            )
        if reply.status in _REFUSALS:
            credentials = "these credentials" if self._login else "no credentials"
            reason = f"token server {server} answers {reply.status} to {credentials}"
            raise AccessDenied(image=self._image, reason=reason)
        if reply.status != _OK:
            raise RegistryUnusable(registry=server, reason=f"its token server answers {reply.status}")

    def _parse_token(self, content: bytes | None, *, server: str) -> _Token:
        document = _decode(content)
        text = document.get("token") or document.get("access_token")
        if not isinstance(text, str) or not _TOKEN.fullmatch(text):
            raise RegistryUnusable(registry=server, reason="its token server's answer holds no token")
        lifetime_seconds = _lifetime_seconds(document.get("expires_in"))
        return _Token(f"Bearer {text}", self._clock() + lifetime_seconds - _EXPIRY_MARGIN_SECONDS)


def token_url(challenge: Challenge, *, scope: str) -> str:
    """Return the URL that gives a token for `challenge`, one `scope` parameter for each of the scopes."""
    parts = urlsplit(challenge.realm)
    query = [("service", challenge.service)] if challenge.service else []
    query += [("scope", one) for one in scope.split()]
    joined = "&".join(text for text in (parts.query, urlencode(query)) if text)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, joined, ""))


def _lifetime_seconds(told: object) -> float:
    """Return what a token server says of its token's life, within bounds; without a usable word, the shortest."""
    if not isinstance(told, int | float) or isinstance(told, bool):
        return DEFAULT_EXPIRY_SECONDS
    # Compared, not converted: an integer of JSON may be beyond every float. NaN, greater than nothing, stands second.
    return min(max(DEFAULT_EXPIRY_SECONDS, told), MAX_EXPIRY_SECONDS)


def _decode(content: bytes | None) -> dict[str, Any]:
    """Decode a token answer; whatever is wrong with it, it then holds no token."""
    try:
        document = json.loads(content or b"")
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
