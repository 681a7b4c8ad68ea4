# SPDX-License-Identifier: Apache-2.0
"""Certificates and proxies, with real TLS and a real proxy."""

import base64
import socket
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.unit.registry.odd_server import Answer, OddServer, odd_server
from worker.errors import InvalidArgument, RegistryUnavailable, RegistryUnusable
from worker.registry.channel import Channel
from worker.settings import Settings


class ConnectProxy:
    """Leads CONNECT to whatever host to one port of this machine, and remembers what it was asked."""

    def __init__(self, upstream_port: int) -> None:
        self.asked: list[str] = []
        self.status = "200 OK"
        self.version = "HTTP/1.1"
        self._upstream_port = upstream_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Accept until closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._lead, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _lead(self, client: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += client.recv(4096)
        self.asked.append(request.decode())
        client.sendall(f"{self.version} {self.status}\r\n\r\n".encode())
        with client, socket.create_connection(("127.0.0.1", self._upstream_port)) as server:
            if self.status.startswith("200"):
                back = threading.Thread(target=_pass, args=(server, client), daemon=True)
                back.start()
                _pass(client, server)
                back.join()


def _pass(source: socket.socket, target: socket.socket) -> None:
    try:
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@contextmanager
def connect_proxy(upstream_port: int) -> Iterator[ConnectProxy]:
    """Run a proxy for the context's time."""
    proxy = ConnectProxy(upstream_port)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """An authority that no machine trusts."""
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[OddServer]:
    """A server with a certificate of that authority."""
    with odd_server(authority.issue_cert("127.0.0.1", "registry.test")) as running:
        running.on("/a", Answer(body=b"here"))
        yield running


def fetch(url: str, **settings: Any) -> bytes | None:
    """Ask once."""
    channel = Channel(Settings(**settings))
    try:
        with channel.get(url, headers={}) as reply:
            return reply.read_all(100)
    finally:
        channel.close()


def certs_for(host: str, tmp_path: Path, authority: trustme.CA) -> Path:
    """Return a directory that has the authority for a host."""
    (tmp_path / host).mkdir()
    authority.cert_pem.write_to_path(str(tmp_path / host / "ca.crt"))
    return tmp_path


def test_an_authority_is_trusted_for_its_host_only(tmp_path: Path, server: OddServer, authority: trustme.CA) -> None:
    """By host and port, as Docker's directories are named."""
    url = f"https://{server.host}/a"

    assert fetch(url, registry_certs_dir=certs_for(server.host, tmp_path, authority)) == b"here"
    (tmp_path / server.host).rename(tmp_path / "127.0.0.1:1")
    with pytest.raises(RegistryUnusable, match="certificate is not trusted"):
        fetch(url, registry_certs_dir=tmp_path)
    with pytest.raises(RegistryUnusable, match="certificate is not trusted"):
        fetch(url)


def test_a_client_certificate_is_shown(tmp_path: Path, authority: trustme.CA) -> None:
    """To a server that wants one; others do not see it."""
    with odd_server(authority.issue_cert("127.0.0.1"), clients=authority) as server:
        server.on("/a", Answer(body=b"here"))
        url, certs_dir = f"https://{server.host}/a", certs_for(server.host, tmp_path, authority)
        with pytest.raises(RegistryUnavailable):
            fetch(url, registry_certs_dir=certs_dir)

        mine = authority.issue_cert("client@example.com")
        mine.private_key_pem.write_to_path(str(certs_dir / server.host / "client.key"))
        mine.cert_chain_pems[0].write_to_path(str(certs_dir / server.host / "client.cert"))

        assert fetch(url, registry_certs_dir=certs_dir) == b"here"


def test_a_certificate_that_is_none_is_named_by_its_directory(tmp_path: Path, server: OddServer) -> None:
    """Without a word of what is in it."""
    (tmp_path / server.host).mkdir()
    (tmp_path / server.host / "ca.crt").write_text("s3cret")

    with pytest.raises(InvalidArgument, match=str(tmp_path / server.host)) as caught:
        fetch(f"https://{server.host}/a", registry_certs_dir=tmp_path)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_https_goes_through_the_proxy(tmp_path: Path, server: OddServer, authority: trustme.CA) -> None:
    """Which is told host and port, its own user and nothing else; the certificate is the registry's own."""
    certs_dir = certs_for("registry.test", tmp_path, authority)
    port = int(server.host.rpartition(":")[2])
    with connect_proxy(port) as proxy:
        more = {"https_proxy": f"http://u:s3cret@127.0.0.1:{proxy.port}", "registry_certs_dir": certs_dir}

        assert fetch("https://registry.test/a", **more) == b"here"

        (asked,) = proxy.asked
        assert asked.startswith("CONNECT registry.test:443 ")
        assert f"Basic {base64.b64encode(b'u:s3cret').decode()}" in asked
        assert [request.headers.get("proxy-authorization") for request in server.asked] == [None]
        proxy.status = "407 Proxy Authentication Required"
        with pytest.raises(RegistryUnavailable, match=r"registry\.test is unavailable: the proxy") as caught:
            fetch("https://registry.test/a", **more)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_what_a_proxy_says_itself_is_not_the_registrys_answer(
    tmp_path: Path, server: OddServer, authority: trustme.CA, version: str
) -> None:
    """The ancestor took the answer to CONNECT for the only one, and could not decode it (MESOS-6010)."""
    certs_dir = certs_for("registry.test", tmp_path, authority)
    with connect_proxy(int(server.host.rpartition(":")[2])) as proxy:
        proxy.version, proxy.status = version, "200 Connection established\r\nProxy-Agent: some"

        body = fetch(
            "https://registry.test/a", https_proxy=f"http://127.0.0.1:{proxy.port}", registry_certs_dir=certs_dir
        )

    assert body == b"here"


@pytest.mark.parametrize("no_proxy", [("registry.test",), (".test",), ("test",), ("other", "*")])
def test_a_host_may_be_reached_without_the_proxy(no_proxy: tuple[str, ...]) -> None:
    """By its name, its domain, or all."""
    with connect_proxy(1) as proxy:
        with pytest.raises(RegistryUnavailable):
            fetch("https://registry.test:1/a", https_proxy=f"http://127.0.0.1:{proxy.port}", no_proxy=no_proxy)
        assert proxy.asked == []


def test_this_machine_and_plain_http_are_reached_without_the_proxy(server: OddServer, authority: trustme.CA) -> None:
    """A proxy elsewhere could not lead back here."""
    with connect_proxy(1) as proxy, odd_server() as plain:
        plain.on("/a", Answer(body=b"plain"))
        more = {"https_proxy": f"http://127.0.0.1:{proxy.port}"}

        assert fetch(f"http://{plain.host}/a", **more) == b"plain"
        with pytest.raises(RegistryUnusable, match="certificate is not trusted"):
            fetch(f"https://{server.host}/a", **more)
        assert proxy.asked == []


@pytest.mark.parametrize("url", ["", "s3cret", "ftp://s3cret", "http://"])
def test_a_proxy_that_is_none_is_refused_at_start(url: str) -> None:
    """Its variable is named, what it holds is not."""
    with pytest.raises(InvalidArgument, match="PROVISIONER_HTTPS_PROXY") as caught:
        Channel(Settings(https_proxy=url))
    assert "s3cret" not in str(caught.value)
