# SPDX-License-Identifier: Apache-2.0
"""Secrets in a Redis hash that only the workers' own user may read.

Key: `provisioner-secrets:<CLUSTER>`, a hash, name -> JSON. It lies outside `{provisioner:…}`, so that an ACL can give
schedulers and Flower that pattern without this key::

    ACL SETUSER secrets on ><password> resetkeys ~provisioner-secrets:default -@all +hget

Differences and limits: a connection of its own, made at the first use, by the URL in `PROVISIONER_SECRETS_REDIS_URL`;
nothing is cached.
"""

from functools import cached_property

import redis
from typing_extensions import override

from worker.errors import InvalidArgument
from worker.secret import MAX_SECRET_BYTES, PlaceSilent, Secret, SecretMalformed, SecretResolver
from worker.settings import Settings


class RedisResolver(SecretResolver):
    """Asks one field of the hash.

    Raises:
        InvalidArgument: The URL is not set, or is none.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = settings.secrets_redis_url
        self._timeout_seconds = settings.redis_timeout_seconds
        self._key = f"provisioner-secrets:{settings.cluster}"
        self.place = f"the Redis hash {self._key}"
        _ = self._client

    @cached_property
    def _client(self) -> redis.Redis:
        url = "" if self._url is None else self._url.get_secret_value()
        try:
            return redis.Redis.from_url(
                url, socket_timeout=self._timeout_seconds, socket_connect_timeout=self._timeout_seconds
            )
        except ValueError:
            variable = "PROVISIONER_SECRETS_REDIS_URL"
            raise InvalidArgument(argument=variable, value="", reason="the resolver redis needs a URL") from None

    @override
    def find(self, name: str) -> Secret | None:
        try:
            content = self._client.hget(self._key, name)
        except redis.RedisError as error:
            # The kind of error only: its text may repeat a URL.
            raise PlaceSilent(f"it cannot be read ({type(error).__name__})") from None
        if content is None:
            return None
        if not isinstance(content, bytes) or len(content) > MAX_SECRET_BYTES:
            raise SecretMalformed(f"it has more than {MAX_SECRET_BYTES} bytes")
        return Secret.parse(content)
