# SPDX-License-Identifier: Apache-2.0
"""The `SecretResolver` contract: a place where a node's secrets are, and `Secret`, what one holds.

Model
    A task names a secret and the node looks it up, in the places its settings name, in their order, at every use: a
    secret changed there is changed. The first place that has the name decides; what it holds there must be usable, for
    a secret of the same name elsewhere may be another's.

What a secret is
    A JSON object in one of these forms::

        {"username": …, "password": …}                     what Docker calls a login
        {"username": …, "password": …, "registry": …}      the same, sent to this registry only
        {"auths": {"<registry>": {"auth": …}}}             Docker's config.json, Kubernetes' .dockerconfigjson
        {"<registry>": {"auth": …}}                        Docker's old .dockercfg

    A user name `<token>` marks a password that is an identity token.

What must fail
    A name nobody has, or what is there in no such form: `SecretNotFound`. A place that does not answer:
    `SecretsUnavailable`, which is transient. Both name the place. No error, log line or repr ever holds a credential,
    nor does an error chain one that might.
"""

import abc
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from worker.puller import Credential
from worker.registry.auth import Login
from worker.registry.credential_helper import IDENTITY_TOKEN_USERNAME
from worker.registry.docker_config import login_in_auths
from worker.settings import MIB

MAX_SECRET_BYTES = MIB


class SecretMalformed(Exception):
    """What a place has under a name is no usable secret; says why, without a word of it."""


@dataclass(frozen=True, slots=True)
class Secret:
    """What a place has under a name; never printed."""

    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, content: bytes | str) -> Self:
        """Decode a secret.

        Raises:
            SecretMalformed: It is no JSON object.
        """
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            raise SecretMalformed("it is not JSON") from None
        if not isinstance(document, dict):
            raise SecretMalformed("it is not a JSON object")
        return cls(document)

    def credential(self, registry: str) -> Credential:
        """Return what the secret holds for a registry.

        Raises:
            SecretMalformed: It is in no known form, or for other registries.
        """
        auths = self.document.get("auths", self.document)
        if isinstance(self.document.get("username"), str):
            return self._pair(registry)
        if not (isinstance(auths, dict) and auths and all(isinstance(entry, dict) for entry in auths.values())):
            raise SecretMalformed("it holds neither the strings username and password nor Docker's auths")
        try:
            login = login_in_auths(auths, registry)
        except ValueError as error:
            raise SecretMalformed(str(error)) from None
        if login is None:
            raise SecretMalformed(f"it has nothing for registry {registry}")
        return _credential(login, registry)

    def _pair(self, registry: str) -> Credential:
        username, password = self.document["username"], self.document.get("password")
        bound = self.document.get("registry", registry)
        if not (username and isinstance(password, str)):
            raise SecretMalformed("it does not hold the strings username and password")
        if bound != registry:
            raise SecretMalformed(f"it is not for registry {registry}")
        return Credential(username, password, registry)


def _credential(login: Login, registry: str) -> Credential:
    if login.identity_token is not None:
        return Credential(IDENTITY_TOKEN_USERNAME, login.identity_token, registry)
    return Credential(login.username, login.password, registry)


class SecretResolver(abc.ABC):
    """One place where secrets are.

    Attributes:
        place: What errors call it; holds no credential.
    """

    place: str

    @abc.abstractmethod
    def find(self, name: str) -> Secret | None:
        """Return the secret of this name, or None if there is none.

        `name` is checked already: letters, digits, `_` and `-`, the first a letter or digit.

        Raises:
            SecretMalformed: There is something that is no secret.
            PlaceSilent: The place does not answer.
        """


class PlaceSilent(Exception):
    """A place does not answer, and may later; says why, without a credential."""
