# SPDX-License-Identifier: Apache-2.0
"""The page is served to whoever asks properly, also beside somebody who does not."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPException

import pytest
from prometheus_client import CollectorRegistry

from tests.support.ports import wait_until
from tests.support.scraping import get, scrape
from worker.metrics.endpoint import MAX_CLIENTS, Endpoint
from worker.metrics.tally import Tally


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An endpoint with an empty tally."""
    registry = CollectorRegistry()
    registry.register(Tally())
    made = Endpoint(registry, address="127.0.0.1", port=0)
    yield made
    made.close()


def test_the_page_is_served(endpoint: Endpoint) -> None:
    """With its own content type, so that Prometheus knows the format."""
    status, content_type, _ = get(endpoint.port)

    assert (status, content_type.partition(";")[0]) == (200, "text/plain")
    assert "provisioner_verbs_total" in scrape(endpoint.port).names


def test_there_is_nothing_else(endpoint: Endpoint) -> None:
    """No listing, no other method."""
    assert get(endpoint.port, "/")[0] == 404
    assert get(endpoint.port, "/metrics/../etc/passwd")[0] == 404
    with socket.create_connection(("127.0.0.1", endpoint.port)) as connection:
        connection.sendall(b"DELETE /metrics HTTP/1.0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.0 501")


def test_a_silent_client_keeps_nobody_waiting(endpoint: Endpoint) -> None:
    """Each has a thread of its own."""
    with socket.create_connection(("127.0.0.1", endpoint.port)) as silent:
        silent.sendall(b"GET /met")

        assert "provisioner_verbs_total" in scrape(endpoint.port).names


def test_many_silent_clients_cost_no_more_than_their_places(endpoint: Endpoint) -> None:
    """The next one is hung up on at once; when they leave, there is room again."""
    with ExitStack() as stack:
        for _ in range(MAX_CLIENTS):
            stack.enter_context(socket.create_connection(("127.0.0.1", endpoint.port)))
        with socket.create_connection(("127.0.0.1", endpoint.port)) as refused:
            assert refused.recv(100) == b""

    wait_until(lambda: is_served(endpoint), "room")


def is_served(endpoint: Endpoint) -> bool:
    """Tell whether the page is there."""
    try:
        return get(endpoint.port)[0] == 200
    except (HTTPException, OSError):
        return False


def test_a_taken_port_is_an_error(endpoint: Endpoint) -> None:
    """Two nodes on one host need two."""
    with pytest.raises(OSError, match="in use"):
        Endpoint(CollectorRegistry(), address="127.0.0.1", port=endpoint.port)


def test_ipv6_is_an_address_too() -> None:
    """As an operator may write it."""
    endpoint = Endpoint(CollectorRegistry(), address="::1", port=0)

    with socket.create_connection(("::1", endpoint.port)) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.0 200")
    endpoint.close()
