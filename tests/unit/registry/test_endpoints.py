# SPDX-License-Identifier: Apache-2.0
"""Where a node may be led."""

import pytest
import yarl
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util import parse_url

from worker.registry.endpoints import HostPolicy, Origin

POLICY = HostPolicy(["lab.example:5000", "bare.example"])


def origin(url: str) -> Origin:
    """Return the origin of a URL that has one."""
    found = Origin.of(url)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("registry", "endpoint"),
    [
        ("docker.io", "https://registry-1.docker.io"),
        ("quay.io", "https://quay.io"),
        ("quay.io:443", "https://quay.io"),
        ("example.com:5000", "https://example.com:5000"),
        ("example.com:80", "https://example.com:80"),
        ("localhost", "http://localhost"),
        ("localhost:5000", "http://localhost:5000"),
        ("localhost:443", "https://localhost"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("127.9.9.9", "http://127.9.9.9"),
        ("127.1:5000", "http://127.1:5000"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("lab.example:5000", "http://lab.example:5000"),
        ("LAB.example:5000", "http://lab.example:5000"),
        ("lab.example:5001", "https://lab.example:5001"),
        ("bare.example", "http://bare.example"),
        ("bare.example:1234", "http://bare.example:1234"),
        ("localhost.example.com", "https://localhost.example.com"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000"),
    ],
)
def test_plain_http_is_for_loopback_and_hosts_of_the_settings(registry: str, endpoint: str) -> None:
    """Everybody else is spoken to over TLS, whatever the port."""
    assert str(POLICY.endpoint(registry)) == endpoint


def test_a_registry_on_an_impossible_port_has_no_endpoint() -> None:
    """The grammar of references allows five digits."""
    assert POLICY.endpoint("example.com:99999") is None


@pytest.mark.parametrize(
    ("sender", "url"),
    [
        ("https://example.com", "https://cdn.example.net/x?signature=1"),
        ("https://example.com", "https://10.0.0.1/x"),
        ("https://example.com", "https://10.1/x"),
        ("https://example.com", "HTTPS://CDN_1.example.net.:443?x"),
        ("https://example.com", "https://[2001:db8::1]:8443/x"),
        ("https://example.com", "http://lab.example:5000/x"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:9000/x"),
        ("http://127.0.0.1:5000", "http://localhost/x"),
        ("http://127.0.0.1:5000", "https://example.com/x"),
        ("http://lab.example:5000", "http://lab.example:5000/x"),
    ],
)
def test_what_keeps_the_level_of_safety_is_followed(sender: str, url: str) -> None:
    """Content networks, and local set-ups among themselves."""
    assert POLICY.refusal(url, sender=origin(sender)) is None


@pytest.mark.parametrize(
    ("sender", "url"),
    [
        ("https://example.com", "http://cdn.example.net/x"),
        ("https://example.com", "http://example.com/x"),
        ("https://example.com", "http://127.0.0.1:6379/"),
        ("https://example.com", "https://127.0.0.1/"),
        ("https://example.com", "https://localhost/"),
        ("https://example.com", "https://[::1]/"),
        ("https://example.com", "https://[::ffff:127.0.0.1]/"),
        ("https://example.com", "https://[::ffff:7f00:1]/"),
        ("https://example.com", "https://[fe80::1]/"),
        ("https://example.com", "https://[fe80::1%25eth0]/"),
        ("https://example.com", "https://[::]/"),
        ("https://example.com", "https://0.0.0.0/"),
        ("https://example.com", "https://0/"),
        ("https://example.com", "https://127.1/"),
        ("https://example.com", "https://0x7f.1/"),
        ("https://example.com", "https://0177.0.0.1/"),
        ("https://example.com", "https://2130706433/"),
        ("https://example.com", "https://2852039166/latest/meta-data"),
        ("https://example.com", "https://127.0.0.1./"),
        ("https://example.com", "https://localhost./"),
        ("https://example.com", "https://registry.localhost/"),
        ("https://example.com", "https://127.0.0.1\\x/"),
        ("https://example.com", "https://example.net\\@127.0.0.1/"),
        ("https://example.com", "https://%31%32%37.1/"),
        ("https://example.com", "https://①27.0.0.1/"),
        ("https://example.com", "http\u017f://example.net/"),
        ("https://example.com", " https://example.net/"),
        ("https://example.com", "https://169.254.169.254/latest/meta-data"),
        ("http://lab.example:5000", "http://169.254.169.254/latest/meta-data"),
        ("http://lab.example:5000", "http://127.0.0.1/"),
        ("http://127.0.0.1:5000", "http://169.254.169.254/"),
        ("http://127.0.0.1:5000", "http://example.com/"),
        ("https://example.com", "file:///etc/passwd"),
        ("https://example.com", "ftp://example.com/"),
        ("https://example.com", "https://user@example.net/"),
        ("https://example.com", "https:///x"),
        ("https://example.com", "https://example.net:99999/"),
        ("https://example.com", "https://[::1/"),
        ("https://example.com", "/relative"),
    ],
)
def test_what_leads_astray_is_refused(sender: str, url: str) -> None:
    """Downgrades, this machine's services, and clouds' credential servers; the path, maybe signed, is not told."""
    reason = POLICY.refusal(url, sender=origin(sender))

    assert reason is not None
    assert "meta-data" not in reason


@given(st.text("ax\u017f017.:/\\@?#%[]_- \t", max_size=24))
def test_the_host_that_is_judged_is_the_host_that_is_asked(rest: str) -> None:
    """By both who connect, urllib3 and aiohttp, as far as they take the URL at all; nothing else is asked."""
    url = f"https://{rest}"
    judged = Origin.of(url)
    if judged is None:
        return

    for read in (parse_url, yarl.URL):
        try:
            asked = read(url)
        except ValueError:
            continue
        assert (judged.host, judged.port) == ((asked.host or "").strip("[]"), asked.port or 443)
