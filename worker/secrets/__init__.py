# SPDX-License-Identifier: Apache-2.0
"""The secret resolvers: see `worker.secret` for what all of them keep.

::

    directory    PROVISIONER_SECRETS_DIR     files, or Docker's and Kubernetes' mounted secrets
    environment  PROVISIONER_SECRET_<NAME>   variables of the worker
    redis        a hash on a Redis of its own URL
    keyring      the key store of the user who runs the worker; extra `keyring`

`PROVISIONER_SECRETS_RESOLVERS` names those that are used, in order.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from worker.errors import InvalidArgument, SecretNotFound, SecretsUnavailable
from worker.puller import Credential
from worker.secret import PlaceSilent, SecretMalformed, SecretResolver
from worker.secrets.directory import DirectoryResolver
from worker.secrets.environment import EnvironmentResolver
from worker.secrets.keychain import KeyringResolver
from worker.secrets.redis_hash import RedisResolver
from worker.settings import Settings

RESOLVERS: Final[Mapping[str, Callable[[Settings], SecretResolver]]] = {
    "directory": DirectoryResolver,
    "environment": EnvironmentResolver,
    "redis": RedisResolver,
    "keyring": KeyringResolver,
}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class Secrets:
    """All secrets of a node.

    Args:
        resolvers: Asked in this order.
    """

    def __init__(self, resolvers: Sequence[SecretResolver]) -> None:
        self._resolvers = tuple(resolvers)

    def credential(self, name: str, *, registry: str) -> Credential:
        """Look a secret up, for the use at one registry.

        Raises:
            SecretNotFound: Nobody has it, it is for other registries, or it is malformed.
            SecretsUnavailable: A place that may have it does not answer.
        """
        if not _NAME.fullmatch(name):
            raise SecretNotFound(secret=name[:160], reason=f"a name must match {_NAME.pattern}")
        for resolver in self._resolvers:
            try:
                secret = resolver.find(name)
                if secret is not None:
                    return secret.credential(registry)
            except SecretMalformed as error:
                raise SecretNotFound(secret=name, reason=f"{resolver.place}: {error}") from None
            except PlaceSilent as error:
                raise SecretsUnavailable(secret=name, place=resolver.place, reason=str(error)) from None
        places = ", ".join(resolver.place for resolver in self._resolvers) or "PROVISIONER_SECRETS_RESOLVERS"
        raise SecretNotFound(secret=name, reason=f"it is not in {places}")


def make_secrets(settings: Settings) -> Secrets:
    """Put together what the settings name; asks nothing yet.

    Raises:
        InvalidArgument: They name what does not exist, or lack what it needs.
    """
    unknown = [name for name in settings.secrets_resolvers if name not in RESOLVERS]
    if unknown:
        reason = f"there are {', '.join(RESOLVERS)}"
        raise InvalidArgument(argument="PROVISIONER_SECRETS_RESOLVERS", value=unknown[0], reason=reason)
    return Secrets([RESOLVERS[name](settings) for name in settings.secrets_resolvers])
