# SPDX-License-Identifier: Apache-2.0
"""`RegistryClient`: manifests and blobs of a registry, verified where they are small enough to hold.

Source: distribution-spec v1.1.1, "Pull".
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Final

from worker.errors import DigestMismatch, InvalidImage, SizeMismatch
from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest
from worker.oci.document import parse_digest
from worker.oci.media_types import INDEXES, MANIFESTS, SCHEMA1
from worker.oci.reference import Reference
from worker.registry.auth import Login
from worker.registry.blobs import BlobStream
from worker.registry.channel import Channel, Reply
from worker.registry.ranges import ExtraConnections, RangedBlob, RangePolicy
from worker.registry.retries import RetryPolicy
from worker.registry.session import OK, Session
from worker.settings import Settings

# Schema 1 is asked for only so that a registry with nothing else sends it, and the user is told what is wrong.
_ACCEPT: Final = ", ".join((*sorted(MANIFESTS | INDEXES), *(f"{name};q=0.1" for name in sorted(SCHEMA1))))


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedManifest:
    """A manifest or index as the registry sent it.

    Attributes:
        content: Byte for byte; its digest is `digest`.
        media_type: Content-Type without parameters; None if the registry sent none.
        digest: The one asked for, or computed.
    """

    content: bytes = field(repr=False)
    media_type: str | None
    digest: Digest


class RepositoryClient:
    """One repository, as one login sees it; safe to share between threads.

    Args:
        session: With the registry.
        retries: For every request.
        ranges: For blobs.
        max_manifest_bytes: Of a manifest, index or configuration.
    """

    def __init__(self, session: Session, *, retries: RetryPolicy, ranges: RangePolicy, max_manifest_bytes: int) -> None:
        self._session = session
        self._retries = retries
        self._ranges = ranges
        self._extras = ExtraConnections(ranges.most - 1)
        self._max_manifest_bytes = max_manifest_bytes

    @property
    def is_logged_in(self) -> bool:
        """Whether the registry asked for the login and was given it, so far."""
        return self._session.is_logged_in

    def manifest(self, selector: str | Digest) -> FetchedManifest:
        """Fetch the manifest or index of a tag or a digest.

        Raises:
            AccessDenied: Refused.
            DigestMismatch: It does not hash to the digest asked for, or to the one the registry names.
            ImageNotFound: There is none.
            InvalidImage: It is larger than allowed, or the digest the registry names is none.
            RegistryUnavailable: After all tries.
            RegistryUnusable: The registry breaks its specification.
        """
        reply, content = self._retries.run(lambda: self._fetch(selector))
        named = reply.headers.get("docker-content-digest")
        expected = selector if isinstance(selector, Digest) else None
        told = parse_digest(named, image=self._session.image, subject="its Docker-Content-Digest") if named else None
        for digest in filter(None, (expected, told)):
            _verify(content, digest, subject=f"manifest {selector} of {self._session.image}")
        media_type = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        return FetchedManifest(content=content, media_type=media_type or None, digest=expected or Digest.of(content))

    def _fetch(self, selector: str | Digest) -> tuple[Reply, bytes]:
        with self._session.get(f"manifests/{selector}", headers={"Accept": _ACCEPT}) as reply:
            if reply.status != OK:
                raise self._session.refusal(reply, subject=f"manifest {selector}")
            content = reply.read_all(self._max_manifest_bytes)
        if content is None:
            reason = f"its manifest is larger than the {self._max_manifest_bytes} bytes allowed"
            raise InvalidImage(image=self._session.image, reason=reason)
        return reply, content

    def config(self, descriptor: Descriptor) -> bytes:
        """Fetch a configuration, verified against its descriptor.

        Raises:
            DigestMismatch: It is not what the descriptor names.
            InvalidImage: It is larger than allowed.
            SizeMismatch: It is longer or shorter than its descriptor says.
            Others: As `manifest`.
        """
        if descriptor.size_bytes > self._max_manifest_bytes:
            reason = f"its configuration is larger than the {self._max_manifest_bytes} bytes allowed"
            raise InvalidImage(image=self._session.image, reason=reason)
        with self.blob(descriptor) as chunks:
            content = b"".join(chunks)
        subject = f"configuration {descriptor.digest} of {self._session.image}"
        if len(content) != descriptor.size_bytes:
            raise SizeMismatch(subject=subject, expected=descriptor.size_bytes, actual=len(content))
        _verify(content, descriptor.digest, subject=subject)
        return content

    @contextmanager
    def blob(self, descriptor: Descriptor, *, offset: int = 0) -> Iterator[Iterator[bytes]]:
        """Stream a blob from `offset`, unverified, in chunks of about 1 MiB; raises as `BlobStream.chunks`."""
        stream = BlobStream(self._session, descriptor, retries=self._retries)
        with closing(self._ranged(stream, descriptor.size_bytes, offset)) as chunks:
            yield chunks

    def _ranged(self, stream: BlobStream, size_bytes: int, offset: int) -> Generator[bytes, None, None]:
        ranges = self._ranges
        if ranges.most == 1 or size_bytes - offset < ranges.min_bytes:
            return stream.chunks(offset)
        return RangedBlob(stream, size_bytes=size_bytes, most=ranges.most, extras=self._extras).chunks(offset)


class RegistryClient:
    """All registries, over one set of connections; safe to share between threads.

    Args:
        settings: Timeouts, tries, bounds, insecure registries.
        sleep: Waits between tries.
    """

    def __init__(self, settings: Settings, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._channel = Channel(settings)
        self._retries = RetryPolicy(attempts=settings.registry_attempts, sleep=sleep)
        self._ranges = RangePolicy(most=settings.parallel_ranges, min_bytes=settings.ranges_min_bytes)
        self._max_manifest_bytes = settings.max_manifest_bytes

    def repository(self, reference: Reference, *, login: Login | None) -> RepositoryClient:
        """Return a client for the reference's repository; asks nothing yet.

        Raises:
            InvalidArgument: The reference's registry cannot be asked.
        """
        session = Session(self._channel, reference, login=login)
        return RepositoryClient(
            session, retries=self._retries, ranges=self._ranges, max_manifest_bytes=self._max_manifest_bytes
        )

    def close(self) -> None:
        """Drop all idle connections."""
        self._channel.close()


def _verify(content: bytes, expected: Digest, *, subject: str) -> None:
    actual = Digest.of(content, algorithm=expected.algorithm)
    if actual != expected:
        raise DigestMismatch(subject=subject, expected=str(expected), actual=str(actual))
