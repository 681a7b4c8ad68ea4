# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that loses replies, delays and cuts connections: the network between a worker and its Redis."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_CHUNK_BYTES = 65536


class Proxy:
    """Passes bytes between its own port and a server's, as faithfully as it is told.

    Attributes:
        port: Of 127.0.0.1, where clients connect.
        upstream_port: Of 127.0.0.1, where new connections lead.
        drops_replies: While true, what the server answers is thrown away; requests still reach it.
        refuses: While true, new connections are closed at once.
        delay_seconds: How long every chunk waits, both ways.
        bytes_per_second: How fast each connection brings what the server answers; 0 for as fast as it can.
        requests: Chunks passed to the server so far.
    """

    def __init__(self, upstream_port: int) -> None:
        self.drops_replies = False
        self.refuses = False
        self.delay_seconds = 0.0
        self.bytes_per_second = 0
        self.requests = 0
        self.upstream_port = upstream_port
        self._sockets: set[socket.socket] = set()
        self._dead: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def cut(self) -> None:
        """Close every connection now open; new ones are accepted."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for connection in sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def deaden(self) -> None:
        """Pass nothing more over the connections now open and say so to nobody, as a firewall that forgot them does."""
        with self._lock:
            self._dead |= self._sockets

    def close(self) -> None:
        """Stop listening and cut everything."""
        self.refuses = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def serve(self) -> None:
        """Accept until closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        if self.refuses:
            client.close()
            return
        try:
            server = socket.create_connection(("127.0.0.1", self.upstream_port))
        except OSError:
            client.close()
            return
        with self._lock:
            self._sockets |= {client, server}
        threading.Thread(target=self._run, args=(client, server), daemon=True).start()

    def _run(self, client: socket.socket, server: socket.socket) -> None:
        replies = threading.Thread(target=self._pass, args=(server, client), kwargs={"is_reply": True}, daemon=True)
        replies.start()
        self._pass(client, server, is_reply=False)
        replies.join()
        with self._lock:
            self._sockets -= {client, server}
            self._dead -= {client, server}
        client.close()
        server.close()

    def _pass(self, source: socket.socket, target: socket.socket, *, is_reply: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK_BYTES):
                time.sleep(self.delay_seconds)
                if is_reply and self.bytes_per_second:
                    time.sleep(len(chunk) / self.bytes_per_second)
                self.requests += not is_reply
                if not (is_reply and self.drops_replies) and source not in self._dead:
                    target.sendall(chunk)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy_to(upstream_port: int) -> Iterator[Proxy]:
    """Run a proxy to 127.0.0.1:`upstream_port` for the context's time."""
    proxy = Proxy(upstream_port)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(timeout=10)
