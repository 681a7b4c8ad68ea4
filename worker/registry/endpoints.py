# SPDX-License-Identifier: Apache-2.0
"""Where a registry answers, and which URLs a node may be led to.

Plain HTTP is for loopback and for hosts the node's settings name. A registry's answer (a redirect, a token server's
address, a foreign layer's URL) is a stranger's word: it may not lead from HTTPS to HTTP, nor from elsewhere to this
machine or to a link-local address, where clouds serve instance credentials (169.254.169.254).

Limit: what a name resolves to is not looked at. A stranger whose DNS says 127.0.0.1 has us begin a TLS handshake there;
it fails unless that service has a certificate for his name, and plain HTTP to a name is refused.
"""

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Self

from typing_extensions import override

from worker.oci.reference import DOCKER_HUB

DOCKER_HUB_HOST: Final = "registry-1.docker.io"

_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535
# What all readers of URLs take for the same host. Of a backslash, an escape or a letter of another script each makes
# something else, and the one that connects is not the one that judges.
_PLAIN = re.compile(
    r"(?P<scheme>https?)://(?:(?P<name>[a-z0-9._-]+)|\[(?P<literal>[0-9a-f:.]+)\])(?::(?P<port>[0-9]{0,5}))?(?![^/?#])",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Origin:
    """What credentials are bound to: scheme, host and port.

    Attributes:
        scheme: http or https.
        host: As written, but in lower case and without brackets.
        port: Always set.
    """

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self | None:
        """Return the origin of an absolute URL, or None if it has none that can be asked."""
        match = _PLAIN.match(url)
        if match is None:
            return None
        scheme, host = match["scheme"].lower(), (match["name"] or match["literal"]).lower()
        port = int(match["port"] or 0) or _PORTS[scheme]
        return cls(scheme, host, port) if port <= _MAX_PORT else None

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine."""
        address = _address(self._name)
        return self._name == "localhost" or (address is not None and address.is_loopback)

    @property
    def is_local(self) -> bool:
        """Whether it is this machine or on its link only, out of reach of an honest stranger."""
        address = _address(self._name)
        is_local_address = address is not None and (address.is_link_local or address.is_unspecified)
        return self.is_loopback or is_local_address or self._name.endswith(".localhost")

    @property
    def _name(self) -> str:
        """The host without the dot that makes a name absolute."""
        return self.host.rstrip(".")

    @property
    def netloc(self) -> str:
        """`host[:port]` as in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @override
    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


class HostPolicy:
    """Decides which origins may be asked.

    Args:
        insecure: `host` or `host:port` spoken to over plain HTTP; a host alone stands for all its ports.
    """

    def __init__(self, insecure: Iterable[str] = ()) -> None:
        self._insecure = frozenset(host.lower() for host in insecure)

    def endpoint(self, registry: str) -> Origin | None:
        """Return where the API of `registry`, as it stands in a reference, answers; None if it cannot.

        Loopback is spoken to over plain HTTP on any port but 443.
        """
        host = DOCKER_HUB_HOST if registry == DOCKER_HUB else registry
        secure, plain = Origin.of(f"https://{host}"), Origin.of(f"http://{host}")
        if plain is not None and self.is_insecure(plain):
            return plain
        is_plain = plain is not None and plain.is_loopback and plain.port != _PORTS["https"]
        return plain if is_plain else secure

    def is_insecure(self, origin: Origin) -> bool:
        """Tell whether the settings name the origin."""
        names = {origin.host, f"{origin.host}:{origin.port}", origin.netloc}
        return not self._insecure.isdisjoint(names)

    def refusal(self, url: str, *, sender: Origin) -> str | None:
        """Say why `sender` may not lead us to `url`, or None if it may.

        The URL itself is not told: it may be signed.
        """
        origin = Origin.of(url)
        if origin is None:
            return "it leads to a URL that does not begin plainly with http[s]://host[:port]"
        if self.is_insecure(origin) or origin == sender:
            return None
        if origin.is_local and not sender.is_loopback:
            return f"it leads to {origin.host}, an address of this machine or its link"
        if origin.scheme == "http" and not (origin.is_loopback and sender.scheme == "http"):
            return f"it leads to {origin}, and plain HTTP is allowed for loopback and insecure registries only"
        return None


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """Parse an address in all forms that lead there without DNS; one mapped into IPv6 counts as what it maps."""
    try:
        address = ip_address(host)
    except ValueError:
        return _numeric_address(host)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _numeric_address(host: str) -> IPv4Address | None:
    """Parse the old forms that resolvers still take, such as 127.1, 0x7f.1 and 2130706433."""
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None
