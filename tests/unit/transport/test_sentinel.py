# SPDX-License-Identifier: Apache-2.0
"""The transport over sentinels delivers and records, and knows one server by whichever sentinel it was found."""

from collections.abc import Iterator

import kombu.transport
import pytest
from kombu import Connection

from tests.support.redis_server import Kind
from tests.support.sentinel import MASTER, SentinelCluster, sentinel_cluster
from worker.transport.sentinel import SentinelTransport

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, redis_kind: Kind) -> Iterator[SentinelCluster]:
    """A master, a replica and three sentinels."""
    with sentinel_cluster(tmp_path_factory.mktemp("sentinel"), kind=redis_kind) as made:
        yield made


def test_the_ledger_outlives_a_change_of_sentinel(cluster: SentinelCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what still runs could not be acknowledged after a failover, and would run again."""
    options = {"master_name": MASTER, "consumer_name": "n1"}
    # What `select` makes of the scheme, for this test's time: with the next URL kombu looks it up again.
    monkeypatch.setitem(kombu.transport._transport_cache, "sentinel", SentinelTransport)
    with Connection(cluster.url, transport_options=options) as connection:
        before, first_url = connection.default_channel.ledger, connection.as_uri()
        with connection.SimpleQueue("q") as queue:
            queue.put("hello")
            message = queue.get(timeout=30)

        connection.maybe_switch_next()

        assert connection.as_uri() != first_url
        assert connection.default_channel.ledger is before
        assert len(before) == 1
        before.acknowledge(message.delivery_tag)
        assert len(before) == 0
