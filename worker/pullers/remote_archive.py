# SPDX-License-Identifier: Apache-2.0
"""Archives elsewhere: whatever fsspec opens, as far as the settings allow its protocol.

Differences and limits: needs the extra `fsspec`; protocols other than http and https need the package that fsspec
names. HTTP redirects lead nowhere a registry's might not, and take a credential to no other origin. For other protocols
the node's own configuration of them decides who asks; a secret is refused.
"""

import importlib
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from worker.errors import (
    AccessDenied,
    ImageNotFound,
    InvalidArgument,
    ProvisionerError,
    RegistryUnavailable,
    RegistryUnusable,
)
from worker.puller import Credential
from worker.pullers.content import CHUNK_BYTES
from worker.registry.auth import Login
from worker.registry.endpoints import HostPolicy, Origin
from worker.registry.retries import is_transient, retry_after_seconds
from worker.settings import Settings

HTTP: Final = frozenset({"http", "https"})
_REFUSED = frozenset({401, 403})


def check_protocol(url: str, settings: Settings, *, argument: str) -> None:
    """Refuse a URL of a protocol that the settings do not name.

    Raises:
        InvalidArgument: Names the argument the URL came by.
    """
    protocol = urlsplit(url).scheme
    if protocol not in settings.archive_protocols:
        allowed = ", ".join(settings.archive_protocols) or "none"
        reason = f"protocol {protocol} is not among PROVISIONER_ARCHIVE_PROTOCOLS, which are: {allowed}"
        raise InvalidArgument(argument=argument, value=url[:300], reason=reason)


@contextmanager
def fetched(
    urls: Sequence[str], settings: Settings, *, image: str, credential: Credential | None
) -> Iterator[Iterator[bytes]]:
    """Stream the first of the archives that is there, in chunks of about 1 MiB.

    Args:
        urls: All of one protocol and host.
        settings: Timeouts, protocols, insecure registries.
        image: Named in errors.
        credential: For http and https.

    Raises:
        ImageNotFound: There is none of them.
        AccessDenied: It is refused to this credential, or to none.
        InvalidArgument: The protocol is not allowed, or what it needs is not installed.
        RegistryUnavailable: The other side cannot be reached or broke off.
        RegistryUnusable: It has no certificate that is trusted here, or leads where the node must not follow.
    """
    check_protocol(urls[0], settings, argument="image")
    with _filesystem(urls[0], settings, image=image, credential=credential) as filesystem:
        for url in urls:
            try:
                with _translated(url, image):
                    file = filesystem.open(url, "rb", **_open_options(url))
            except ImageNotFound:
                if url == urls[-1]:
                    raise
                continue
            with closing(file):
                yield _chunks(file, url, image)
            return


def _open_options(url: str) -> dict[str, Any]:
    """Ask for a plain stream over HTTP.

    Without a size, be it a wrong one, fsspec sends HEAD first, and turns all that goes wrong with it into "not found".
    """
    return {"block_size": 0, "size": 1} if urlsplit(url).scheme in HTTP else {}


def _chunks(file: Any, url: str, image: str) -> Iterator[bytes]:
    with _translated(url, image):
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


@contextmanager
def _filesystem(url: str, settings: Settings, *, image: str, credential: Credential | None) -> Iterator[Any]:
    """Make the protocol's filesystem for this one use: neither cached nor shared, for it may hold a credential."""
    protocol = urlsplit(url).scheme
    try:
        core = importlib.import_module("fsspec.core")
    except ImportError:
        reason = "it needs the extra: pip install rootfs-provisioner[fsspec]"
        raise InvalidArgument(argument="image", value=image, reason=reason) from None
    if credential is not None and protocol not in HTTP:
        reason = f"a secret is for http and https; for {protocol} the node's own configuration is used"
        raise InvalidArgument(argument="secret", value="", reason=reason)
    with ExitStack() as stack:
        with _translated(url, image):
            options = stack.enter_context(_http_options(settings, credential)) if protocol in HTTP else {}
            try:
                filesystem, _ = core.url_to_fs(url, skip_instance_cache=True, **options)
            except ValueError:
                reason = f"fsspec knows no protocol {protocol}"
                raise InvalidArgument(argument="image", value=image, reason=reason) from None
        yield filesystem


@contextmanager
def _http_options(settings: Settings, credential: Credential | None) -> Iterator[dict[str, Any]]:
    """Give what fsspec passes on to aiohttp, and close the session at the end."""
    aiohttp, asyn = importlib.import_module("aiohttp"), importlib.import_module("fsspec.asyn")
    sessions: list[Any] = []

    async def get_client(**options: Any) -> Any:
        sessions.append(aiohttp.ClientSession(**options))
        return sessions[-1]

    seconds = settings.registry_timeout_seconds
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_redirect_check(HostPolicy(settings.insecure_registries)))
    options: dict[str, Any] = {
        "get_client": get_client,
        "client_kwargs": {
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds),
            "trace_configs": [trace],
        },
        "ssl": ssl.create_default_context(),
    }
    if credential is not None:
        # Of the request, not of the session: so aiohttp drops it where a redirect leads to another origin.
        options["headers"] = {"Authorization": Login(credential.username, credential.password).basic}
    try:
        yield options
    finally:
        for session in sessions:
            asyn.sync(asyn.get_loop(), session.close)


def _redirect_check(policy: HostPolicy) -> Callable[..., Any]:
    async def check(_session: object, _context: object, params: Any) -> None:
        """Stop before a redirect is followed that may not be."""
        sender = Origin.of(str(params.url))
        headers = params.response.headers
        # As aiohttp reads them.
        location = headers.get("Location") or headers.get("URI", "")
        if sender is None:
            raise RegistryUnusable(registry="the archive's server", reason="it redirects from nowhere")
        if refusal := policy.refusal(urljoin(str(params.url), location), sender=sender):
            raise RegistryUnusable(registry=sender.netloc, reason=refusal)

    return check


@contextmanager
def _translated(url: str, image: str) -> Iterator[None]:
    """Translate what fsspec and all below it raise. Texts may quote headers, so they are neither told nor chained."""
    host = urlsplit(url).netloc or urlsplit(url).scheme
    try:
        yield
    except ProvisionerError:
        raise
    except FileNotFoundError:
        raise ImageNotFound(image=image, reason=f"there is no {url}") from None
    except PermissionError:
        raise AccessDenied(image=image, reason=f"{host} refuses it") from None
    except ImportError as error:
        raise InvalidArgument(argument="image", value=image, reason=str(error)) from None
    except ssl.SSLCertVerificationError:
        raise RegistryUnusable(registry=host, reason="its certificate is not trusted on this node") from None
    except Exception as error:  # noqa: BLE001 - every protocol has errors of its own
        raise _explained(error, host=host, image=image) from None


def _explained(error: Exception, *, host: str, image: str) -> ProvisionerError:
    """Return our error for one that holds an HTTP status, or no answer at all."""
    status = getattr(error, "status", None)
    if not isinstance(status, int) or status == 0:
        return RegistryUnavailable(registry=host, reason=f"the archive cannot be read ({type(error).__name__})")
    if status in _REFUSED:
        return AccessDenied(image=image, reason=f"{host} answers {status}")
    if is_transient(status):
        wait = retry_after_seconds(_header(error, "Retry-After"))
        return RegistryUnavailable(registry=host, reason=f"it answers {status}", retry_after_seconds=wait)
    return RegistryUnusable(registry=host, reason=f"it answers {status}")


def _header(error: Exception, name: str) -> str | None:
    """Return a header of the answer that an error tells of, if its protocol has such."""
    headers = getattr(error, "headers", None)
    value = headers.get(name) if isinstance(headers, Mapping) else None
    return value if isinstance(value, str) else None
