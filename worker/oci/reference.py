# SPDX-License-Identifier: Apache-2.0
"""`Reference` and `ImageSource`: an image's name in a registry, and an image's name anywhere.

Source: distribution/reference v0.6.0, `reference.go` (grammar) and `normalize.go` (Docker Hub's short names);
containers-transports(5) for the spelling of the other sources.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final, NoReturn, Self
from urllib.parse import urlsplit

from typing_extensions import override

from worker.errors import InvalidArgument
from worker.oci.appc import AppcReference
from worker.oci.digest import Digest

DOCKER_HUB: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
MAX_NAME_CHARS: Final = 255

_LEGACY_DOCKER_HUB = "index.docker.io"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")

_MAX_CHARS = 4096
_DOCKER_PREFIX = "docker://"
# No user, no query, no fragment: what signs or names somebody in a URL is a credential.
_URL = re.compile(
    r"(?P<url>(?P<scheme>[a-z][a-z0-9+.-]{0,31})://(?P<host>(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?)?"
    r"/(?P<path>[^:?#\\]+))(?::(?P<ref>.+))?"
)
_PATH_TRANSPORTS = frozenset({"oci", "docker-archive"})
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")
_SOURCE_INDEX = re.compile(r"@[0-9]{1,9}")
_REF_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]*")


@dataclass(frozen=True, slots=True)
class Reference:
    """A name as the registry knows it: nothing is implied any more.

    Attributes:
        registry: Host name or address, with the port if one was given.
        repository: Path of the repository on it; `library/…` for Docker Hub's official images.
        tag: Set unless only a digest was given.
        digest: Goes before the tag when both are there.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: object, *, default_registry: str = DOCKER_HUB) -> Self:
        """Parse `[registry/]repository[:tag][@digest]`, with Docker's defaults for what else is left out.

        Raises:
            InvalidArgument: When `text` is no string or breaks the grammar.
        """
        if not isinstance(text, str):
            refuse(text, "it must be a string")
        named, at, digest_text = text.partition("@")
        name, tag = _split_tag(named)
        registry, repository = _split_registry(name, default_registry)
        _check(text, registry=registry, repository=repository, tag=tag)
        digest = _parse_digest(text, digest_text) if at else None
        return cls(registry, repository, tag or (None if digest else DEFAULT_TAG), digest)

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @override
    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}@{self.digest}" if self.digest else f"{self.name}{tag}"


def refuse(text: object, reason: str) -> NoReturn:
    """Raise `InvalidArgument` for an image name."""
    raise InvalidArgument(argument="image", value=str(text)[:300], reason=reason)


def _split_tag(named: str) -> tuple[str, str | None]:
    """Split at the last colon unless that one belongs to a registry's port."""
    name, colon, tag = named.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (named, None)


def _split_registry(name: str, default_registry: str) -> tuple[str, str]:
    """Split off the registry: the first component is one if no repository of Docker Hub could begin so."""
    first, slash, rest = name.partition("/")
    is_registry = first == "localhost" or any(mark in first for mark in ".:") or first != first.lower()
    registry, repository = (first, rest) if slash and is_registry else (default_registry, name)
    if registry == _LEGACY_DOCKER_HUB:
        registry = DOCKER_HUB
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository


def _check(text: str, *, registry: str, repository: str, tag: str | None) -> None:
    if len(registry) + len(repository) + 1 > MAX_NAME_CHARS:
        refuse(text, f"registry and repository have more than {MAX_NAME_CHARS} characters")
    if _IMAGE_ID.fullmatch(text):
        refuse(text, "64 hexadecimal digits are an image's id, not its name")
    if not _REGISTRY.fullmatch(registry):
        refuse(text, f"{registry!r} is no registry's host[:port]")
    if not _REPOSITORY.fullmatch(repository):
        refuse(text, "a repository is lower-case letters and digits, separated by one of . _ __ - and by /")
    if tag is not None and not _TAG.fullmatch(tag):
        refuse(text, f"its tag must match {_TAG.pattern}")


def _parse_digest(text: str, digest_text: str) -> Digest:
    try:
        return Digest.parse(digest_text)
    except InvalidArgument:
        refuse(text, "what follows @ must be sha256:<64 hex> or sha512:<128 hex>")


class Transport(StrEnum):
    """Kinds of sources, spelled as skopeo spells them."""

    DOCKER = "docker"
    OCI = "oci"
    DOCKER_ARCHIVE = "docker-archive"
    DOCKER_DAEMON = "docker-daemon"
    APPC = "appc"


@dataclass(frozen=True, slots=True)
class ImageSource:
    """What a caller's `image` means: a kind of source, and the image in it.

    Attributes:
        transport: The kind.
        reference: The image's name, for `docker`, and for `docker-archive` and `docker-daemon` when given by name.
        path: Of the layout or archive, absolute.
        ref: What else selects the image, as text: the ref name of an `oci` layout, `@<index>` of a layout or archive,
            the image id (a digest) of a `docker-daemon`, an `AppcReference` for `appc`.
        url: Of an archive that is elsewhere, instead of the path.
    """

    transport: Transport
    reference: Reference | None = None
    path: Path | None = None
    ref: str | None = None
    url: str | None = None

    @classmethod
    def parse(cls, text: object, *, default_registry: str = DOCKER_HUB) -> Self:
        """Parse `[docker://]name[:tag][@digest]`, `oci:PATH[:ref]`, `docker-archive:PATH[:ref]` and so on.

        Args:
            text: As a caller wrote it.
            default_registry: Of a name without one, unless it is a name in an archive or an Engine: who wrote those
                meant Docker Hub.

        Raises:
            InvalidArgument: When `text` is no string or breaks the grammar of its transport.
        """
        if not isinstance(text, str) or not text.isprintable() or len(text) > _MAX_CHARS:
            refuse(text, f"it must be a string of at most {_MAX_CHARS} printable characters")
        prefix, _, rest = text.partition(":")
        if prefix == Transport.DOCKER_ARCHIVE and _SCHEME.match(rest):
            return cls._parse_url(rest)
        if prefix in _PATH_TRANSPORTS:
            return cls._parse_path(Transport(prefix), rest)
        if prefix == Transport.DOCKER_DAEMON:
            return cls._parse_daemon(rest)
        if prefix == Transport.APPC:
            return cls._parse_appc(rest)
        name = text.removeprefix(_DOCKER_PREFIX)
        return cls(Transport.DOCKER, reference=Reference.parse(name, default_registry=default_registry))

    @classmethod
    def _parse_url(cls, rest: str) -> Self:
        parts = _URL.fullmatch(rest)
        if parts is None or ".." in parts["path"].split("/"):
            # Not quoted: it may be signed.
            refuse("docker-archive:…", "its URL must be scheme://[host[:port]]/path, without user, query, : or ..")
        source = cls(Transport.DOCKER_ARCHIVE, url=parts["url"])
        ref = parts["ref"]
        if ref is None:
            return source
        if ref.startswith("@"):
            return replace(source, ref=_check_index(ref))
        return replace(source, reference=Reference.parse(ref))

    @classmethod
    def _parse_path(cls, transport: Transport, rest: str) -> Self:
        path_text, colon, ref = rest.partition(":")
        if not path_text.startswith("/") or ".." in path_text.split("/"):
            refuse(f"{transport}:{rest}", "it needs an absolute path without ..")
        path = Path(f"/{path_text.lstrip('/')}")
        if not colon:
            return cls(transport, path=path)
        if ref.startswith("@"):
            return cls(transport, path=path, ref=_check_index(ref))
        if transport is Transport.DOCKER_ARCHIVE:
            return cls(transport, path=path, reference=Reference.parse(ref))
        if not _REF_NAME.fullmatch(ref):
            refuse(f"{transport}:{rest}", "its ref is no name as org.opencontainers.image.ref.name may hold")
        return cls(transport, path=path, ref=ref)

    @classmethod
    def _parse_daemon(cls, rest: str) -> Self:
        if rest.startswith("sha256:"):
            return cls(Transport.DOCKER_DAEMON, ref=str(_parse_digest(rest, rest)))
        return cls(Transport.DOCKER_DAEMON, reference=Reference.parse(rest))

    @classmethod
    def _parse_appc(cls, rest: str) -> Self:
        return cls(Transport.APPC, ref=str(AppcReference.parse(rest)))

    @property
    def host(self) -> str | None:
        """Host and port of whoever is asked for the image; None for what lies on the node itself."""
        if self.url is not None:
            return urlsplit(self.url).netloc or None
        return self.reference.registry if self.transport is Transport.DOCKER and self.reference else None

    def exactly(self, digest: Digest) -> Self:
        """Return what leads to this manifest and no other, where the source can name it by its digest."""
        if self.transport is not Transport.DOCKER or self.reference is None:
            return self
        return replace(self, reference=replace(self.reference, digest=digest))

    @property
    def normalised(self) -> str:
        """The one spelling of this source; parsing it gives this source again."""
        selector = str(self.reference) if self.reference else self.ref
        if self.transport is Transport.DOCKER:
            return str(selector)
        parts = (self.transport.value, str(self.path) if self.path else self.url, selector)
        return ":".join(part for part in parts if part)

    @override
    def __str__(self) -> str:
        return self.normalised


def _check_index(ref: str) -> str:
    if not _SOURCE_INDEX.fullmatch(ref):
        refuse(ref, "what follows :@ must be the number of an image in the source")
    return ref
