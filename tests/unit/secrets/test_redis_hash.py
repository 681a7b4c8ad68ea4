# SPDX-License-Identifier: Apache-2.0
"""Secrets in a Redis hash, behind a real server's ACL."""

import traceback
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.redis_server import RedisServer
from worker.errors import InvalidArgument, SecretsUnavailable
from worker.puller import Credential
from worker.secrets import make_secrets
from worker.secrets.redis_hash import RedisResolver
from worker.settings import Settings

pytestmark = pytest.mark.redis

KEY = "provisioner-secrets:blue"
PASSWORD = "s3cret-acl"  # noqa: S105 - of a server that lives as long as its test


@pytest.fixture
def server(own_redis_server: RedisServer) -> RedisServer:
    """A server whose user `secrets` may read fields of the hash, and whose other user may do all but that."""
    with own_redis_server.client() as client:
        client.hset(KEY, mapping={"team-a": '{"username": "u", "password": "s3cret-pass"}', "bad": "s3cret-bad"})
        client.acl_setuser("secrets", enabled=True, passwords=[f"+{PASSWORD}"], keys=[KEY], commands=["+hget"])
        others = ["{provisioner:*}*", "celery*"]
        client.acl_setuser("scheduler", enabled=True, passwords=["+x"], keys=others, categories=["+@all"])
    return own_redis_server


def settings_for(tmp_path: Path, server: RedisServer, *, user: str = f"secrets:{PASSWORD}", **more: Any) -> Settings:
    """Return the settings of a node that has its secrets there."""
    url = f"redis://{user}@127.0.0.1:{server.port}/0"
    defaults = {"cluster": "blue", "secrets_resolvers": ("redis",), "redis_timeout_seconds": 2.0}
    return Settings(work_dir=tmp_path, store_dir=tmp_path, secrets_redis_url=url, **defaults | more)


def test_a_field_is_a_secret(tmp_path: Path, server: RedisServer) -> None:
    """Read by a user who may do nothing else, and only that user may."""
    secrets = make_secrets(settings_for(tmp_path, server))

    assert secrets.credential("team-a", registry="r") == Credential("u", "s3cret-pass", "r")
    assert RedisResolver(settings_for(tmp_path, server)).find("absent") is None
    with redis.Redis(port=server.port, username="secrets", password=PASSWORD) as client:
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.hgetall(KEY)
    with redis.Redis(port=server.port, username="scheduler", password="x") as client:  # noqa: S106 - see above
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.hget(KEY, "team-a")


@pytest.mark.parametrize("user", ["secrets:s3cret-wrong", "scheduler:x"])
def test_who_may_not_read_it_is_told_so_without_the_url(tmp_path: Path, server: RedisServer, user: str) -> None:
    """An ACL can be set right under a running worker, so a retry may help."""
    secrets = make_secrets(settings_for(tmp_path, server, user=user))

    with pytest.raises(SecretsUnavailable, match=f"the Redis hash {KEY}: it cannot be read") as caught:
        secrets.credential("team-a", registry="r")
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_server_that_is_away_may_come_back(tmp_path: Path, server: RedisServer) -> None:
    """The same resolver then reads it."""
    secrets = make_secrets(settings_for(tmp_path, server))
    server.kill()
    with pytest.raises(SecretsUnavailable):
        secrets.credential("team-a", registry="r")
    server.start()
    with server.client() as client:
        client.acl_setuser("secrets", enabled=True, passwords=[f"+{PASSWORD}"], keys=[KEY], commands=["+hget"])

    assert secrets.credential("team-a", registry="r").username == "u"


@pytest.mark.parametrize("url", [None, "", "s3cret://", "http://s3cret"])
def test_a_node_without_a_usable_url_does_not_start(tmp_path: Path, url: str | None) -> None:
    """The variable is named, what it holds is not."""
    settings = Settings(work_dir=tmp_path, store_dir=tmp_path, secrets_redis_url=url, secrets_resolvers=("redis",))

    with pytest.raises(InvalidArgument, match="PROVISIONER_SECRETS_REDIS_URL") as caught:
        make_secrets(settings)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in repr(settings)
