# SPDX-License-Identifier: Apache-2.0
"""Connections by whom they lead to: with the certificates that are kept for it, and through the proxy or past it.

Certificates lie as Docker's do: `<PROVISIONER_REGISTRY_CERTS_DIR>/<host[:port]>/` holds `ca.crt`, trusted for this host
beside what the machine trusts, and `client.cert` with `client.key`, shown to it. They are read at the first connection
of a process.

The proxy is for HTTPS, by CONNECT, so it sees hosts and no more; plain HTTP and this machine are reached without.

Source: docs.docker.com, "Verify repository client with certificates".
"""

import ssl
import threading
from pathlib import Path
from typing import Any, Final

import urllib3
from urllib3.util import make_headers, parse_url

from worker.errors import InvalidArgument
from worker.registry.endpoints import Origin
from worker.settings import Settings

_MANY_HOSTS: Final = 32


class Pools:
    """Gives the pool manager for an origin; safe to share between threads.

    Args:
        settings: Timeouts, certificates, the proxy, how many connections to keep.

    Raises:
        InvalidArgument: The proxy is no URL.
    """

    def __init__(self, settings: Settings) -> None:
        seconds = settings.registry_timeout_seconds
        self._options: dict[str, Any] = {
            "num_pools": _MANY_HOSTS,
            "maxsize": settings.parallel_layers + settings.parallel_ranges,
            "timeout": urllib3.Timeout(connect=seconds, read=seconds),
            "retries": False,
        }
        self._certs_dir = settings.registry_certs_dir
        self._proxy_options = _proxy_options(settings)
        self._direct = tuple(name.lower().lstrip(".") for name in settings.no_proxy)
        self._mutex = threading.Lock()
        self._managers: dict[tuple[Path | None, bool], urllib3.PoolManager] = {}

    def manager(self, origin: Origin) -> urllib3.PoolManager:
        """Return what connects to the origin.

        Raises:
            InvalidArgument: A certificate that is kept for it cannot be used.
        """
        key = (self._certs_of(origin), self._is_proxied(origin))
        with self._mutex:
            if key not in self._managers:
                self._managers[key] = self._make(*key)
            return self._managers[key]

    def close(self) -> None:
        """Drop all idle connections."""
        with self._mutex:
            for manager in self._managers.values():
                manager.clear()

    def _make(self, certs_dir: Path | None, is_proxied: bool) -> urllib3.PoolManager:
        options = self._options if certs_dir is None else {**self._options, "ssl_context": _context(certs_dir)}
        if is_proxied:
            return urllib3.ProxyManager(**self._proxy_options, **options)
        return urllib3.PoolManager(**options)

    def _certs_of(self, origin: Origin) -> Path | None:
        # A host of dots only would lead out of the directory.
        if self._certs_dir is None or origin.scheme != "https" or not origin.host.strip("."):
            return None
        directory = self._certs_dir / origin.netloc
        return directory if directory.is_dir() else None

    def _is_proxied(self, origin: Origin) -> bool:
        if not self._proxy_options or origin.scheme != "https" or origin.is_loopback:
            return False
        return not any(name == "*" or f".{origin.host}".endswith(f".{name}") for name in self._direct)


def _context(certs_dir: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authorities, certificate, key = (certs_dir / name for name in ("ca.crt", "client.cert", "client.key"))
    try:
        if authorities.exists():
            context.load_verify_locations(authorities)
        if certificate.exists():
            context.load_cert_chain(certificate, key)
    except OSError as error:
        # Of which SSL's errors are some; with a name of a file, without what is in it.
        reason = error.strerror or type(error).__name__
        raise InvalidArgument(argument="certificates of a registry", value=str(certs_dir), reason=reason) from None
    return context


def _proxy_options(settings: Settings) -> dict[str, Any]:
    """Return what urllib3 wants of the proxy, nothing without one."""
    if settings.https_proxy is None:
        return {}
    url = parse_url(settings.https_proxy.get_secret_value())
    if url.scheme not in {"http", "https"} or not url.host:
        reason = "it must be http://[user:password@]host[:port]"
        raise InvalidArgument(argument="PROVISIONER_HTTPS_PROXY", value="", reason=reason)
    headers = make_headers(proxy_basic_auth=url.auth) if url.auth else None
    return {"proxy_url": url._replace(auth=None).url, "proxy_headers": headers}
