# SPDX-License-Identifier: Apache-2.0
"""What a registry's 401 asks for.

Source: RFC 9110, section 11.6.1 (`WWW-Authenticate`); distribution, docs/spec/auth/token.md.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')
_SCHEME = re.compile(_WORD)
_SEPARATORS = re.compile(r"[\s,]*")


class Scheme(StrEnum):
    """Ways to authenticate that registries use, the preferred one first."""

    BEARER = "bearer"
    BASIC = "basic"


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate that a server offers.

    Attributes:
        scheme: How.
        realm: For bearer, the URL of the token server.
        service: For bearer, who will accept the token; may be empty.
        scope: For bearer, what the token must allow, separated by spaces; may be empty.
    """

    scheme: Scheme
    realm: str = ""
    service: str = ""
    scope: str = ""


def choose_challenge(headers: Iterable[str]) -> Challenge | None:
    """Choose the best of the challenges in the `WWW-Authenticate` headers, or None if none can be answered."""
    offered: dict[Scheme, Challenge] = {}
    for header in headers:
        for name, parameters in _parse(header):
            challenge = _challenge(name, parameters)
            if challenge is not None:
                offered.setdefault(challenge.scheme, challenge)
    return next((offered[scheme] for scheme in Scheme if scheme in offered), None)


def _challenge(name: str, parameters: dict[str, str]) -> Challenge | None:
    """Return a challenge that can be answered, or None."""
    realm, service, scope = (parameters.get(key, "") for key in ("realm", "service", "scope"))
    if name == Scheme.BASIC or (name == Scheme.BEARER and realm):
        return Challenge(Scheme(name), realm, service, scope)
    return None


def _parse(header: str) -> list[tuple[str, dict[str, str]]]:
    """Split a header into schemes with their parameters; what cannot be read ends it."""
    challenges: list[tuple[str, dict[str, str]]] = []
    position = _skip(header, 0)
    while position < len(header):
        parameter = _PARAMETER.match(header, position)
        match = parameter or _SCHEME.match(header, position)
        if match is None or (parameter and not challenges):
            break
        if parameter:
            quoted, bare = parameter[2], parameter[3]
            value = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            challenges[-1][1].setdefault(parameter[1].lower(), value)
        else:
            challenges.append((match[0].lower(), {}))
        position = _skip(header, match.end())
    return challenges


def _skip(header: str, position: int) -> int:
    match = _SEPARATORS.match(header, position)
    return match.end() if match else position
