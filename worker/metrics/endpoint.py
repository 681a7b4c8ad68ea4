# SPDX-License-Identifier: Apache-2.0
"""`Endpoint`: the page that Prometheus reads, over HTTP, from threads of the worker's main process."""

import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from typing_extensions import override

PATH = "/metrics"
MAX_CLIENTS = 16
"""Answered at a time; who comes on top is hung up on, so that strangers cost the worker so many threads and no more."""
_SILENCE_SECONDS = 5.0


class Endpoint:
    """Serves a registry at `/metrics`.

    Args:
        registry: Read anew for each request.
        address: To listen on; no name, an IPv4 or IPv6 address.
        port: To listen on; 0 for one that is free.

    Raises:
        OSError: The address is not this host's, or the port is taken.
    """

    def __init__(self, registry: CollectorRegistry, *, address: str, port: int) -> None:
        self._server = _Server(registry, address=address, port=port)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics-endpoint", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def close_in_child(self) -> None:
        """Let go of the port, in a forked process, which has none of the threads.

        Otherwise a child that outlives a killed worker would keep the port from its successor.
        """
        self._server.socket.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = MAX_CLIENTS

    def __init__(self, registry: CollectorRegistry, *, address: str, port: int) -> None:
        self.registry = registry
        self._places = threading.BoundedSemaphore(MAX_CLIENTS)
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), _Handler)

    @override
    def server_bind(self) -> None:
        # HTTPServer's would ask the name service for this host's name, which may take its time.
        TCPServer.server_bind(self)

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            # The process can have no more threads, so none will give the place back.
            self._places.release()
            raise

    @override
    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SILENCE_SECONDS

    def do_GET(self) -> None:
        """Answer with the page, in the format that is asked for."""
        if self.path.partition("?")[0] != PATH:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        page = encode(self.server.registry)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    @override
    def version_string(self) -> str:
        return "provisioner"

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Log no request: there is one every few seconds."""
