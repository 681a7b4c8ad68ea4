# SPDX-License-Identifier: Apache-2.0
"""The `Puller` contract: an image at its source, resolved and open for reading.

Model
    `Puller.open` resolves an `ImageSource` to one image for one platform and yields a `RemoteImage`: its manifest and
    configuration, already verified against their digests, and a way to stream each layer's blob. Blobs are *not*
    verified by the puller: the layer pipeline hashes them as they pass, together with inflating and building.

What must fail
    A source without the image: `ImageNotFound`. No manifest for the platform: `PlatformNotFound`. Anything malformed,
    of the wrong media type or beyond a limit: `InvalidImage`. A digest that does not match: `DigestMismatch`.
    Refused credentials: `AccessDenied`. A source that cannot be reached or broke off: `RegistryUnavailable`, which is
    transient and carries the source's Retry-After.

No error, log line or repr ever holds a credential.
"""

import abc
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import ClassVar

from worker.oci.config import ImageConfig
from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource, Transport


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and a password or token for a registry; never printed.

    Attributes:
        username: `<token>` if the password is an identity token.
        password: See there.
        registry: The only host it may be sent to; None for whichever the caller asks.
    """

    username: str = field(repr=False)
    password: str = field(repr=False)
    registry: str | None = None

    def is_for(self, registry: str | None) -> bool:
        """Tell whether it may be sent to `registry`; None is nobody."""
        return registry is not None and self.registry in (None, registry)


class RemoteImage(abc.ABC):
    """One image at its source.

    Attributes:
        digest: Of `manifest`.
        manifest: The manifest, byte for byte (made up canonically for sources that have none).
        config: The configuration, byte for byte.
        image_config: `config`, parsed.
        layers: The layers' blobs, base first; as many as `image_config.diff_ids`.
        can_resume: Whether a blob's beginning is worth keeping: `offset` saves fetching it again.
        credential: What the caller of `open` brought and the source was shown; None if it was shown what the node has.
        is_private: Whether the source asked who wants the image, and was told. If not, anybody may have it.
    """

    can_resume: ClassVar[bool] = False
    credential: Credential | None = None
    is_private: bool = False

    digest: Digest
    manifest: bytes
    config: bytes
    image_config: ImageConfig
    layers: tuple[Descriptor, ...]

    @abc.abstractmethod
    def blob(self, descriptor: Descriptor, *, offset: int = 0) -> AbstractContextManager[Iterator[bytes]]:
        """Stream a layer's blob from its byte `offset`, 0 to its size, in chunks of about 1 MiB.

        A broken connection is resumed inside, where the source can. Safe to call from several threads at once.

        Raises:
            RegistryUnavailable: The source went away for good; a retry of the task can help.
        """


class Puller(abc.ABC):
    """Fetches manifest, configuration and blobs from one kind of source.

    Attributes:
        transports: What it can open.
    """

    transports: ClassVar[frozenset[Transport]]

    @abc.abstractmethod
    def open(
        self, source: ImageSource, *, platform: Platform, credential: Credential | None
    ) -> AbstractContextManager[RemoteImage]:
        """Resolve `source` for `platform`.

        `credential` goes before anything the node itself knows for the source. Anything the puller spools to disk is
        gone when the context ends.
        """
