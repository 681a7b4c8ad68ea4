# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server that misbehaves as told, and remembers what it was asked.

::

    with odd_server() as server:
        server.on("/v2/a/manifests/1", Answer(status=503), Answer(body=b"{}"))

Each path gives its answers in turn; the last one again and again.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trustme


@dataclass(frozen=True)
class Asked:
    """A request as it arrived; header names in lower case."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def authorization(self) -> str | None:
        """The Authorization header."""
        return self.headers.get("authorization")


@dataclass(frozen=True)
class Answer:
    """What to send.

    Attributes:
        status: Of the answer.
        body: As it is sent.
        headers: Beside Content-Length.
        length: Content-Length if it shall lie; -1 for none at all, so that the end of the connection ends the body.
        cut_after: Bytes of the body after which the connection is reset.
        is_endless: The body is repeated for as long as somebody reads.
        chunk_bytes: Send the body chunked, in chunks of so many bytes.
        bytes_per_second: Send the body no faster.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    cut_after: int | None = None
    is_endless: bool = False
    chunk_bytes: int | None = None
    bytes_per_second: int | None = None


Script = Answer | Callable[[Asked], Answer]


class _QuietServer(ThreadingHTTPServer):
    """A server for which a client that hangs up is nothing to tell."""

    def handle_error(self, *args: Any) -> None:
        """Say nothing."""


class OddServer:
    """The server; `host` is `127.0.0.1:<port>`."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._scripts: dict[str, list[Script]] = {}
        self._mutex = threading.Lock()
        self.asked: list[Asked] = []
        self._server = _QuietServer(("127.0.0.1", 0), self._handler_class())
        self._server.daemon_threads = True
        if context is not None:
            # Each connection shakes hands in its own thread.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.host = f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """The server's URL without a path."""
        return f"http://{self.host}"

    def on(self, path: str, *answers: Script) -> None:
        """Answer requests for `path`."""
        self._scripts[path] = list(answers)

    def asked_for(self, path: str) -> list[Asked]:
        """Return the requests for `path` so far."""
        return [asked for asked in self.asked if asked.path == path]

    def run(self) -> None:
        """Serve until `stop`."""
        self._server.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        """Stop serving and close the socket."""
        self._server.shutdown()
        self._server.server_close()

    def _next(self, asked: Asked) -> Answer:
        with self._mutex:
            self.asked.append(asked)
            scripts = self._scripts.get(asked.path, [Answer(status=404)])
            script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
        return script(asked) if callable(script) else script

    def _handler_class(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", "0")))
                asked = Asked(self.command, parts.path, parse_qs(parts.query), headers, body)
                try:
                    _send(self, server._next(asked))
                except OSError:
                    self.close_connection = True

            do_POST = do_GET  # noqa: N815 - the base class looks for this name

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        return Handler


def _send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    handler.send_response(answer.status)
    for name, value in answer.headers.items():
        handler.send_header(name, value)
    has_length = answer.length != -1 and not answer.is_endless
    if answer.chunk_bytes:
        handler.send_header("Transfer-Encoding", "chunked")
    elif has_length:
        handler.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
    else:
        handler.send_header("Connection", "close")
    handler.end_headers()
    _write(handler, answer, (_chunked(answer) if answer.chunk_bytes else answer.body)[: answer.cut_after])
    while answer.is_endless:
        handler.wfile.write(answer.body)
    if answer.cut_after is not None:
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = handler.close_connection or not has_length


def _write(handler: BaseHTTPRequestHandler, answer: Answer, body: bytes) -> None:
    piece_bytes = 65536 if answer.bytes_per_second else len(body) or 1
    for start in range(0, len(body), piece_bytes):
        if answer.bytes_per_second:
            time.sleep(piece_bytes / answer.bytes_per_second)
        handler.wfile.write(body[start : start + piece_bytes])


def _chunked(answer: Answer) -> bytes:
    """Return the body in HTTP's chunked form, the last chunk included."""
    size = answer.chunk_bytes or 1
    chunks = [answer.body[start : start + size] for start in range(0, len(answer.body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])


@contextmanager
def odd_server(
    certificate: trustme.LeafCert | None = None, *, clients: trustme.CA | None = None
) -> Iterator[OddServer]:
    """Run a server for the context's time; over TLS with a certificate, and for clients with one of `clients` only."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
    if context is not None and clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        clients.configure_trust(context)
    server = OddServer(context)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
