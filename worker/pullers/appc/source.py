# SPDX-License-Identifier: Apache-2.0
"""Where archives are found: simple discovery on the web, or a directory of this node.

The name of an archive is `{name}-{version}-{os}-{arch}.aci`, behind the prefix that the settings have; the version is
`latest` unless a label says otherwise. Signatures (`.aci.asc`) are not looked at: what pins an image is its id.

Source: appc spec 0.8.11, discovery.md, "Discovery Templates".
"""

import abc
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from typing_extensions import override

from worker.errors import (
    AccessDenied,
    ImageNotFound,
    InvalidImage,
    ProvisionerError,
    RegistryUnavailable,
    RegistryUnusable,
)
from worker.oci.appc import AppcReference
from worker.pullers.content import Extent, reading
from worker.registry.channel import CHUNK_BYTES, Channel, Reply
from worker.registry.endpoints import Origin
from worker.registry.retries import is_transient, retry_after_seconds
from worker.settings import Settings

DEFAULT_VERSION: Final = "latest"
_OK, _NOT_MODIFIED, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _GONE = 200, 304, 401, 403, 404, 410
_STRONG_TAG = re.compile(r'"[\x21\x23-\x7e]{1,512}"')
_TICK_NS = 100_000_000
_FILE_SCHEME = "file://"


@dataclass(frozen=True, slots=True, kw_only=True)
class AciRequest:
    """An archive that is wanted.

    Attributes:
        path: Its name, perhaps with slashes in it.
        image: Named in errors.
        asked_path: The name of the archive that the caller asked for, of which this one is a dependency or which it is:
            its origin says how far a stranger's word is trusted.
    """

    path: str
    image: str
    asked_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundAci:
    """An archive at its source.

    Attributes:
        chunks: The archive as it is, in chunks of about 1 MiB; None if it is the version that the caller knows.
        tag: Tells, once all chunks have been taken, what to call this version, or None if there is no sure name for it.
    """

    chunks: Iterator[bytes] | None
    tag: Callable[[], str | None]


class AciSource(abc.ABC):
    """Opens archives by their name."""

    @abc.abstractmethod
    def place(self, path: str) -> str:
        """Return what stands for an archive's name with where it is."""

    @abc.abstractmethod
    def open(self, request: AciRequest, *, known_tag: str | None = None) -> AbstractContextManager[FoundAci]:
        """Look for an archive.

        `known_tag` is what an earlier version was called; without it there are chunks.

        Raises:
            ImageNotFound: There is none of this name.
            AccessDenied: It is not given to us.
            RegistryUnavailable: Its server does not answer or broke off; a retry can help.
            RegistryUnusable: Its server may not be asked, or breaks its protocol.
        """


def make_source(settings: Settings) -> AciSource:
    """Return what the settings' prefix leads to; touches nothing yet."""
    prefix = settings.appc_discovery_prefix
    if prefix.startswith("/"):
        return DirectorySource(Path(prefix))
    if prefix.startswith(_FILE_SCHEME):
        return DirectorySource(Path(unquote(prefix.removeprefix(_FILE_SCHEME))))
    return WebSource(prefix if prefix.endswith("/") else f"{prefix}/", settings)


def archive_path(reference: AppcReference, *, defaults: Mapping[str, str], image: str) -> str:
    """Return the archive's name.

    Raises:
        ImageNotFound: A label cannot be part of one, or would make it lead elsewhere.
    """
    labels = {"version": DEFAULT_VERSION, **defaults, **dict(reference.labels)}
    words = [labels[name] for name in ("version", "os", "arch")]
    for word in words:
        if "/" in word or "\\" in word or not word.isprintable() or not word:
            raise ImageNotFound(image=image, reason=f"a label's value cannot be part of a file's name: {word!r:.80}")
    return f"{'-'.join((reference.name, *words))}.aci"


class DirectorySource(AciSource):
    """Archives in a directory of this node."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @override
    def place(self, path: str) -> str:
        return str(self._directory / path)

    @override
    @contextmanager
    def open(self, request: AciRequest, *, known_tag: str | None = None) -> Iterator[FoundAci]:
        path = self._directory / request.path
        with reading(request.image):
            # Without O_NONBLOCK a fifo would hold the worker for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidImage(image=request.image, reason=f"{path} is not a regular file")
            tag = _file_tag(status)
            is_known = tag is not None and tag == known_tag
            yield FoundAci(
                chunks=None if is_known else _reported(Extent(descriptor, 0, status.st_size), request.image),
                tag=lambda: tag if tag == _file_tag(os.fstat(descriptor)) else None,
            )
        finally:
            os.close(descriptor)


class WebSource(AciSource):
    """Archives on the web. Plain HTTP is for loopback and for hosts that the settings call insecure.

    Args:
        prefix: Ends in a slash.
        settings: Timeouts, insecure hosts.
    """

    def __init__(self, prefix: str, settings: Settings) -> None:
        self._prefix = prefix
        self._channel = Channel(settings)

    @override
    def place(self, path: str) -> str:
        return self._url(path)

    @override
    @contextmanager
    def open(self, request: AciRequest, *, known_tag: str | None = None) -> Iterator[FoundAci]:
        url, home = self._url(request.path), self._home(request)
        if url != self._url(request.asked_path) and (refusal := self._channel.policy.refusal(url, sender=home)):
            raise RegistryUnusable(registry=home.netloc, reason=f"for the dependency {request.path} {refusal}")
        headers = {} if known_tag is None else {"If-None-Match": known_tag}
        with self._channel.get(url, headers=headers) as reply:
            is_known = known_tag is not None and reply.status == _NOT_MODIFIED
            if not is_known and reply.status != _OK:
                raise _refusal(reply, request)
            yield FoundAci(chunks=None if is_known else _chunks(reply), tag=lambda: _web_tag(reply))

    def _url(self, path: str) -> str:
        return self._prefix + quote(path, safe="/~+")

    def _home(self, request: AciRequest) -> Origin:
        """Return where the caller's own image is, which must be allowed: nobody else's word stands for it."""
        origin = Origin.of(self._url(request.asked_path))
        if origin is None or (self._prefix.endswith("://") and "/" not in request.asked_path):
            raise ImageNotFound(image=request.image, reason="its name begins with no host that can be asked")
        if origin.scheme == "http" and not (origin.is_loopback or self._channel.policy.is_insecure(origin)):
            reason = "plain HTTP is allowed for loopback and insecure registries only"
            raise RegistryUnusable(registry=origin.netloc, reason=reason)
        return origin


def _web_tag(reply: Reply) -> str | None:
    """Return the ETag, unless it is a weak one, which may stand for other bytes. Source: RFC 9110, 8.8.3."""
    tag = reply.headers.get("etag", "")
    return tag if _STRONG_TAG.fullmatch(tag) else None


def _file_tag(status: os.stat_result) -> str | None:
    """Name a version of a file; None while the clock of its filesystem might not tell the next change from the last."""
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _TICK_NS:
        return None
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def _chunks(reply: Reply) -> Iterator[bytes]:
    received = 0
    while chunk := reply.read_some(CHUNK_BYTES):
        received += len(chunk)
        yield chunk
    if received < (reply.content_length or 0):
        reason = f"it broke off after {received} of {reply.content_length} bytes"
        raise RegistryUnavailable(registry=reply.origin.netloc, reason=reason)


def _refusal(reply: Reply, request: AciRequest) -> ProvisionerError:
    host, answer = reply.origin.netloc, f"answers {reply.status} for {request.path}"
    if reply.status in {_UNAUTHORIZED, _FORBIDDEN}:
        return AccessDenied(image=request.image, reason=f"{host} {answer}; archives are fetched without credentials")
    if reply.status in {_NOT_FOUND, _GONE}:
        return ImageNotFound(image=request.image, reason=f"{host} {answer}")
    if is_transient(reply.status):
        wait = retry_after_seconds(reply.headers.get("retry-after"))
        return RegistryUnavailable(registry=host, reason=f"it {answer}", retry_after_seconds=wait)
    return RegistryUnusable(registry=host, reason=f"it {answer}")


def _reported(extent: Extent, image: str) -> Iterator[bytes]:
    with reading(image):
        yield from extent.chunks()
