# SPDX-License-Identifier: Apache-2.0
"""Redirects and bounded replies."""

import logging
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from urllib3.exceptions import SSLError

from tests.support.ports import free_port
from tests.unit.registry.odd_server import Answer, OddServer
from worker.errors import RegistryUnavailable, RegistryUnusable
from worker.registry.channel import MAX_REDIRECTS, Channel, Pace, _translated
from worker.registry.endpoints import Origin
from worker.settings import Settings


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[Channel]:
    """A channel that gives up on silence soon."""
    running = Channel(Settings(work_dir=tmp_path, store_dir=tmp_path, registry_timeout_seconds=0.3))
    yield running
    running.close()


def redirect(url: str, *, status: int = 307) -> Answer:
    """Return a redirect with a body, as many servers send one."""
    return Answer(status=status, headers={"Location": url}, body=b"<a>moved</a>")


def test_authorization_is_asked_for_anew_at_every_hop(
    channel: Channel, server: OddServer, other_server: OddServer
) -> None:
    """What one origin gets, another never sees; the other headers go along."""
    server.on("/a", redirect(f"{other_server.url}/b"))
    other_server.on("/b", redirect(f"{server.url}/c"))
    server.on("/c", Answer(body=b"here"))
    secrets = {Origin.of(server.url): "Bearer secret"}

    with channel.get(f"{server.url}/a", headers={"Accept": "x"}, authorize=secrets.get) as reply:
        body = reply.read_all(100)

    assert body == b"here"
    assert [asked.authorization for asked in server.asked] == ["Bearer secret", "Bearer secret"]
    assert [asked.authorization for asked in other_server.asked] == [None]
    assert other_server.asked[0].headers["accept"] == "x"
    assert other_server.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_relative_redirects_are_resolved(channel: Channel, server: OddServer, status: int) -> None:
    """Against the URL that sent them."""
    server.on("/a/b", redirect("../c?x=1", status=status))
    server.on("/c", Answer(body=b"here"))

    with channel.get(f"{server.url}/a/b", headers={}) as reply:
        assert reply.read_all(100) == b"here"
    assert server.asked[-1].query == {"x": ["1"]}


def test_a_loop_of_redirects_ends(channel: Channel, server: OddServer) -> None:
    """After a fixed number, as an error that no retry can mend."""
    server.on("/a", redirect("/a"))

    with pytest.raises(RegistryUnusable, match="redirects more than"), channel.get(f"{server.url}/a", headers={}):
        pass
    assert len(server.asked) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/secret", "http://example.com/secret", "file:///secret", "http://[secret", "http://a:b@c/"],
)
def test_a_redirect_to_where_we_must_not_go_is_refused(channel: Channel, server: OddServer, location: str) -> None:
    """And the error does not repeat the URL, which may be signed."""
    server.on("/a", redirect(location))

    with pytest.raises(RegistryUnusable) as caught, channel.get(f"{server.url}/a", headers={}):
        pass
    assert "secret" not in str(caught.value)


def test_a_redirect_to_nowhere_is_refused(channel: Channel, server: OddServer) -> None:
    """A Location is what makes a redirect."""
    server.on("/a", Answer(status=302))

    with pytest.raises(RegistryUnusable, match="to nowhere"), channel.get(f"{server.url}/a", headers={}):
        pass


def test_a_form_is_not_sent_where_a_redirect_leads(channel: Channel, server: OddServer) -> None:
    """It may hold a refresh token."""
    server.on("/a", redirect("/b"))

    with channel.post(f"{server.url}/a", body="refresh_token=secret", headers={}) as reply:
        assert reply.status == 307
    assert [(asked.method, asked.path, asked.body) for asked in server.asked] == [
        ("POST", "/a", b"refresh_token=secret")
    ]


@pytest.mark.parametrize("answer", [Answer(body=b"x" * 11), Answer(body=b"x" * 11, length=-1)])
def test_a_body_beyond_the_bound_is_not_returned(channel: Channel, server: OddServer, answer: Answer) -> None:
    """Whether its length is told or not."""
    server.on("/a", answer)

    with channel.get(f"{server.url}/a", headers={}) as reply:
        assert reply.read_all(10) is None
    with channel.get(f"{server.url}/a", headers={}) as reply:
        assert reply.read_all(11) == b"x" * 11


@pytest.mark.parametrize("length", ["9" * 400, "9" * 5000, "-1", "ten"], ids=lambda text: f"{text:.4}, {len(text)}")
def test_a_length_that_is_none_says_nothing(channel: Channel, server: OddServer, length: str) -> None:
    """The body is read to the end of the connection then, and the reply closed, as without one."""
    server.on("/a", Answer(body=b"x", length=-1, headers={"Content-Length": length}))

    with channel.get(f"{server.url}/a", headers={}) as reply:
        assert reply.content_length is None
        assert reply.read_some(10) == b"x"


def test_an_endless_body_ends_at_the_bound(channel: Channel, server: OddServer) -> None:
    """Memory is bounded by the caller, never by the server."""
    server.on("/a", Answer(body=b"x" * 65536, is_endless=True))

    with channel.get(f"{server.url}/a", headers={}) as reply:
        assert reply.read_all(1_000_000) is None


def test_a_broken_body_is_the_registrys_trouble(channel: Channel, server: OddServer) -> None:
    """A body shorter than its Content-Length is not taken for whole."""
    server.on("/a", Answer(body=b"x" * 100, cut_after=10))

    with channel.get(f"{server.url}/a", headers={}) as reply, pytest.raises(RegistryUnavailable, match=server.host):
        reply.read_all(1000)


def test_a_registry_that_says_nothing_is_given_up(channel: Channel, server: OddServer) -> None:
    """After the timeout of the settings."""
    server.on("/a", Answer(body=b"", length=10))

    with channel.get(f"{server.url}/a", headers={}) as reply, pytest.raises(RegistryUnavailable, match="in time"):
        reply.read_all(1000)


def test_nobody_listening_is_told_by_host_and_reason(channel: Channel) -> None:
    """The reason is the operating system's."""
    host = f"127.0.0.1:{free_port()}"

    with pytest.raises(RegistryUnavailable, match=f"{host} is unavailable: Connection refused"):
        channel.get(f"http://{host}/a", headers={}).__enter__()


def test_connections_are_used_again(channel: Channel, server: OddServer) -> None:
    """Also after redirects and refusals, whose bodies are short."""
    ports: set[object] = set()
    server.on("/a", redirect("/b"))
    server.on("/b", Answer(status=404, body=b"no"))

    for _ in range(3):
        with channel.get(f"{server.url}/a", headers={}) as reply:
            connection = reply._raw.connection
            assert connection is not None
            ports.add(connection.sock.getsockname())

    assert len(ports) == 1


def test_urls_are_not_logged(channel: Channel, server: OddServer, caplog: pytest.LogCaptureFixture) -> None:
    """A redirect's URL may be signed, and urllib3 would log it at DEBUG."""
    server.on("/a", Answer())

    with caplog.at_level(logging.DEBUG), channel.get(f"{server.url}/a?signature=secret", headers={}):
        pass
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", RegistryUnusable),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", RegistryUnusable),
        ("[SSL] record layer failure", RegistryUnavailable),
    ],
)
def test_a_certificate_does_not_get_better_by_retrying(text: str, error: type[Exception]) -> None:
    """Trust is permanent, a broken record is not."""
    origin = Origin("https", "example.com", 443)

    with pytest.raises(error, match=r"^example\.com"), _translated(origin):
        raise SSLError(ssl.SSLError(1, text))


def test_plain_http_behind_https_is_explained(channel: Channel, server: OddServer) -> None:
    """The usual cause is a registry that the settings should name as insecure."""
    with pytest.raises(RegistryUnusable, match="insecure registry"):
        channel.get(f"https://{server.host}/a", headers={}).__enter__()


def test_a_peer_that_trickles_is_noticed() -> None:
    """Each window must bring something; a good one does not pay for a bad one after it."""
    now = [0.0]
    pace = Pace(10.0, clock=lambda: now[0])

    assert not pace.is_stalled(0)
    now[0] = 9.0
    assert not pace.is_stalled(1)
    now[0] = 10.0
    assert not pace.is_stalled(1_000_000)
    now[0] = 20.0
    assert pace.is_stalled(100)
