# SPDX-License-Identifier: Apache-2.0
"""URLs of sentinels as kombu and Celery read them, and calls that end when no sentinel answers."""

import time

import kombu
import pytest
import redis
from celery import Celery

from tests.support.ports import free_port
from worker.sentinel import SentinelUrl, celery_options, connect, is_sentinel

URL = "sentinel://us%40er:p%2Fw@s1/3;sentinel://us%40er:p%2Fw@s2:26380/3"
PASSWORD = "hunter2"  # noqa: S105 - of no server


def test_a_url_is_read_as_kombu_and_celery_read_it() -> None:
    """A scheduler has the same URL, and may not end up in another database."""
    parsed = SentinelUrl.parse(URL)
    options = celery_options(URL, "main", timeout_seconds=5)
    app = Celery(broker=URL, backend=URL, set_as_current=False)
    app.conf.update(broker_transport_options=options, result_backend_transport_options=options)

    broker, results = app.connection_for_write(), app.backend.connparams

    assert parsed.addresses == (("s1", 26379), ("s2", 26380))
    assert (parsed.username, parsed.password, parsed.db) == ("us@er", "p/w", 3)
    assert (broker.userid, broker.password, int(broker.virtual_host)) == ("us@er", "p/w", 3)
    assert (results["username"], results["password"], results["db"]) == ("us@er", "p/w", 3)
    assert isinstance(broker.transport, kombu.transport.redis.SentinelTransport)


def test_the_masters_connections_are_made_with_the_urls_credentials() -> None:
    """The sentinels' are not: they have passwords of their own, or none."""
    pool = connect(URL, "main", timeout_seconds=5, socket_timeout=7).connection_pool

    kwargs = pool.connection_kwargs
    assert (kwargs["username"], kwargs["password"], kwargs["db"], kwargs["socket_timeout"]) == ("us@er", "p/w", 3, 7)
    assert pool.service_name == "main"
    for sentinel in pool.sentinel_manager.sentinels:
        assert sentinel.connection_pool.connection_kwargs.get("password") is None


def test_one_sentinel_is_enough_and_everything_else_may_be_left_out() -> None:
    """The port is Sentinel's own then, the database 0."""
    assert SentinelUrl.parse("sentinel://host") == SentinelUrl(addresses=(("host", 26379),))


@pytest.mark.parametrize(
    "url",
    [
        f"sentinel://:{PASSWORD}@a:1/0;redis://:{PASSWORD}@b:1/0",
        f"sentinel://:{PASSWORD}@a:1/0;",
        f"sentinel://:{PASSWORD}@a:{PASSWORD}/0",
        f"sentinel://:{PASSWORD}@a:99999/0",
        f"sentinel://:{PASSWORD}@[::1/0",
        f"sentinel://:{PASSWORD}@a:1/db",
        f"sentinel://:{PASSWORD}@a:1/0?x=1",
        "sentinel://",
        # What only the first or the last part says, the others lack when it is their turn.
        f"sentinel://:{PASSWORD}@a:1/0;sentinel://b:1/0",
        f"sentinel://:{PASSWORD}@a:1;sentinel://:{PASSWORD}@b:1/3",
    ],
)
def test_what_could_not_be_followed_is_refused_without_showing_it(url: str) -> None:
    """A failover is no time to find out, and a log no place for a password."""
    with pytest.raises(ValueError, match=r"sentinel://|number of the database") as caught:
        SentinelUrl.parse(url)

    assert PASSWORD not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_parsed_url_does_not_show_its_password() -> None:
    """Wherever it is printed."""
    assert PASSWORD not in repr(SentinelUrl.parse(f"sentinel://:{PASSWORD}@a:1/0"))


def test_only_sentinels_have_options() -> None:
    """With a server's own URL nothing changes."""
    assert not is_sentinel("redis://h/0")
    assert celery_options("redis://h/0", "mymaster", timeout_seconds=5) == {}


def test_a_call_ends_when_no_sentinel_answers() -> None:
    """By an error that is retried like any lost connection. redis-py's own default tries each for seconds."""
    url = ";".join(f"sentinel://127.0.0.1:{free_port()}/0" for _ in range(3))
    client = connect(url, "mymaster", timeout_seconds=5)
    began_at = time.monotonic()

    with pytest.raises(redis.ConnectionError, match="No master found"):
        client.ping()

    assert time.monotonic() - began_at < 5
