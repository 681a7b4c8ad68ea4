# SPDX-License-Identifier: Apache-2.0
"""Requests to one repository of one registry, with its challenges answered and its refusals translated."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from worker.errors import (
    AccessDenied,
    ImageNotFound,
    InvalidArgument,
    ProvisionerError,
    RegistryUnavailable,
    RegistryUnusable,
)
from worker.oci.reference import Reference
from worker.registry.auth import Authorizer, Login
from worker.registry.challenge import choose_challenge
from worker.registry.channel import MAX_ERROR_BYTES, Channel, Reply
from worker.registry.endpoints import Origin
from worker.registry.retries import is_transient, retry_after_seconds

OK: Final = 200
PARTIAL_CONTENT: Final = 206
NOT_FOUND: Final = 404
RANGE_NOT_SATISFIABLE: Final = 416

_UNAUTHORIZED, _FORBIDDEN = 401, 403
# One round without credentials, one for the registry's challenge, one for that of a registry it redirects to.
_MAX_ROUNDS = 3
_ERROR_CODE = re.compile(r"[A-Z_]{1,64}")


class Session:
    """One image's conversation with its registry; safe to share between threads.

    Args:
        channel: Shared by all sessions.
        reference: Names registry and repository.
        login: What the registry knows us by, or None.

    Raises:
        InvalidArgument: The registry's host and port cannot be asked.
    """

    def __init__(self, channel: Channel, reference: Reference, *, login: Login | None) -> None:
        self.image = str(reference)
        self._channel = channel
        self._home = self._endpoint(reference)
        self._base_url = f"{self._home}/v2/{reference.repository}"
        self._authorizer = Authorizer(
            channel,
            image=self.image,
            home=self._home,
            login=login,
            default_scope=f"repository:{reference.repository}:pull",
        )
        self._must_introduce = login is not None

    def _endpoint(self, reference: Reference) -> Origin:
        origin = self._channel.policy.endpoint(reference.registry)
        if origin is None:
            raise InvalidArgument(argument="image", value=self.image, reason="its registry's port is no port")
        return origin

    @property
    def registry(self) -> str:
        """The registry's host and port."""
        return self._home.netloc

    @property
    def is_logged_in(self) -> bool:
        """Whether the login was asked for and given, so far."""
        return self._authorizer.is_login_given

    @contextmanager
    def get(self, path: str, *, headers: Mapping[str, str]) -> Iterator[Reply]:
        """Ask the repository for `manifests/…` or `blobs/…`, authorised if need be, and yield what it answers.

        Raises:
            AccessDenied: The token server refuses.
            RegistryUnavailable: No answer.
            RegistryUnusable: No answer for good.
        """
        if self._must_introduce:
            self._introduce()
        url, asked = f"{self._base_url}/{path}", set[Origin]()
        for _ in range(_MAX_ROUNDS):
            with self._channel.get(url, headers=headers, authorize=self._authorizer.header) as reply:
                if reply.origin in asked or not self._accept_challenge(reply):
                    yield reply
                    return
                asked.add(reply.origin)
        raise RegistryUnusable(registry=self.registry, reason="it asks for credentials again and again")

    @contextmanager
    def get_foreign(self, url: str, *, headers: Mapping[str, str]) -> Iterator[Reply]:
        """Ask another server, as a layer's descriptor says, without credentials.

        Raises:
            RegistryUnavailable: No answer.
            RegistryUnusable: The URL may not be followed, or no answer for good.
        """
        if refusal := self._channel.policy.refusal(url, sender=self._home):
            raise RegistryUnusable(registry=self.registry, reason=f"for a foreign layer {refusal}")
        with self._channel.get(url, headers=headers) as reply:
            yield reply

    def _introduce(self) -> None:
        """Learn what the registry wants, before asking for anything with a login.

        Some registries answer 403 or 404, without a challenge, to whom they do not know. Several threads may do this at
        once to the same effect.
        """
        with self._channel.get(f"{self._home}/v2/", headers={}) as reply:
            self._accept_challenge(reply)
        self._must_introduce = False

    def _accept_challenge(self, reply: Reply) -> bool:
        """Take note of what a 401 wants; tell whether asking again makes sense."""
        if reply.status != _UNAUTHORIZED:
            return False
        challenge = choose_challenge(reply.header_values("www-authenticate"))
        if challenge is None:
            return False
        self._authorizer.accept(reply.origin, challenge, rejected=reply.authorization)
        return True

    def refusal(self, reply: Reply, *, subject: str) -> ProvisionerError:
        """Return the error that a status other than the hoped-for stands for; reads the reply's body."""
        host, answer = reply.origin.netloc, _describe(reply)
        if reply.status in {_UNAUTHORIZED, _FORBIDDEN}:
            reason = f"{host} answers {answer} for {subject}; it may not exist or need other credentials"
            return AccessDenied(image=self.image, reason=reason)
        if reply.status == NOT_FOUND:
            return ImageNotFound(image=self.image, reason=f"{host} answers {answer} for {subject}")
        if is_transient(reply.status):
            wait = retry_after_seconds(reply.headers.get("retry-after"))
            reason = f"it answers {answer} for {subject}"
            return RegistryUnavailable(registry=host, reason=reason, retry_after_seconds=wait)
        return RegistryUnusable(registry=host, reason=f"it answers {answer} for {subject}")


def _describe(reply: Reply) -> str:
    """Return the status and the error codes of the body.

    Codes only: a message is a stranger's text, which may repeat what we sent, credentials included.
    """
    codes = ", ".join(_error_codes(reply))
    return f"{reply.status} ({codes})" if codes else str(reply.status)


def _error_codes(reply: Reply) -> list[str]:
    try:
        document = json.loads(reply.read_all(MAX_ERROR_BYTES) or b"{}")
        codes = [error["code"] for error in document["errors"][:4]]
    except (RegistryUnavailable, ValueError, RecursionError, KeyError, TypeError):
        return []
    return [code for code in codes if isinstance(code, str) and _ERROR_CODE.fullmatch(code)]
