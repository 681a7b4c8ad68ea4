# SPDX-License-Identifier: Apache-2.0
"""Images in a registry: `[docker://]name[:tag][@digest]`.

Differences and limits: a digest goes before a tag when both are given, and the tag is not asked for. Credentials are
those of the call, else what Docker's configuration on this node has for the registry. A user name `<token>` marks a
password that is an identity token, as in Docker's credential helpers. Callers who bring no credential are served by the
registry's mirrors first, if it has any.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar

from typing_extensions import override

from worker.errors import InvalidArgument, InvalidImage, ProvisionerError, SizeMismatch
from worker.oci.descriptor import Descriptor
from worker.oci.manifest import Index, parse_manifest_or_index
from worker.oci.media_types import GENERIC, INDEXES, MANIFESTS
from worker.oci.platform import Platform
from worker.oci.reference import DEFAULT_TAG, ImageSource, Reference, Transport
from worker.puller import Credential, Puller, RemoteImage
from worker.pullers.resolve import ResolvedImage, Wanted, complete, resolve
from worker.registry.auth import Login
from worker.registry.client import RegistryClient, RepositoryClient
from worker.registry.credential_helper import IDENTITY_TOKEN_USERNAME
from worker.registry.docker_config import docker_login
from worker.registry.mirrors import at_mirror, parse_mirrors
from worker.settings import Settings

_log = logging.getLogger(__name__)


class RegistryImage(RemoteImage):
    """An image whose layers come from its repository.

    Args:
        repository: Where.
        resolved: What the image is, fetched from there.
        credential: What the repository was shown.
    """

    can_resume: ClassVar[bool] = True

    def __init__(self, repository: RepositoryClient, resolved: ResolvedImage, *, credential: Credential | None) -> None:
        self.digest = resolved.digest
        self.manifest = resolved.manifest
        self.config = resolved.config
        self.image_config = resolved.image_config
        self.layers = resolved.layers
        self.credential = credential
        self.is_private = repository.is_logged_in
        self._repository = repository

    @override
    def blob(self, descriptor: Descriptor, *, offset: int = 0) -> AbstractContextManager[Iterator[bytes]]:
        return self._repository.blob(descriptor, offset=offset)


class RegistryPuller(Puller):
    """Pulls from registries; one for a process, safe to share between threads.

    Args:
        settings: Platforms apart, everything about registries.
        client: Made from the settings if not given.

    Raises:
        InvalidArgument: A setting is unusable.
    """

    transports: ClassVar[frozenset[Transport]] = frozenset({Transport.DOCKER})

    def __init__(self, settings: Settings, *, client: RegistryClient | None = None) -> None:
        self._settings = settings
        self._client = client or RegistryClient(settings)
        self._mirrors = parse_mirrors(settings.registry_mirrors)

    def close(self) -> None:
        """Drop all idle connections."""
        self._client.close()

    @override
    @contextmanager
    def open(self, source: ImageSource, *, platform: Platform, credential: Credential | None) -> Iterator[RemoteImage]:
        reference = source.reference
        if reference is None:
            raise InvalidArgument(argument="image", value=str(source), reason="it names no image of a registry")
        if credential is not None and not credential.is_for(reference.registry):
            credential = None
        image = self._at_mirrors(reference, platform) if credential is None else None
        yield image or self._at(reference, platform, credential)

    def _at_mirrors(self, reference: Reference, platform: Platform) -> RegistryImage | None:
        """Return the image as the first mirror that has it gives it, None if there is none.

        A mirror may lack an image, be away or be broken: its registry is there to be asked. It is not shown what a
        caller brings, which is for the registry.
        """
        for mirror in self._mirrors.get(reference.registry, ()):
            try:
                return self._at(at_mirror(reference, mirror), platform, None)
            except ProvisionerError as error:
                _log.warning("mirror %s of %s is passed over: %s", mirror, reference.registry, error)
        return None

    def _at(self, reference: Reference, platform: Platform, credential: Credential | None) -> RegistryImage:
        repository = self._client.repository(reference, login=self._login(reference, credential))
        return RegistryImage(repository, self._resolve(repository, reference, platform), credential=credential)

    def _login(self, reference: Reference, credential: Credential | None) -> Login | None:
        if credential is None:
            return docker_login(
                reference.registry,
                config_dir=self._settings.docker_config_dir,
                helper_timeout_seconds=self._settings.credential_helper_timeout_seconds,
            )
        if credential.username == IDENTITY_TOKEN_USERNAME:
            return Login(identity_token=credential.password)
        return Login(username=credential.username, password=credential.password)

    def _resolve(self, repository: RepositoryClient, reference: Reference, platform: Platform) -> ResolvedImage:
        """Follow the reference through indexes, if there are any, to one image."""
        wanted = Wanted(image=str(reference), platform=platform, max_layers=self._settings.max_layers)
        fetched = repository.manifest(reference.digest or reference.tag or DEFAULT_TAG)
        document = parse_manifest_or_index(fetched.content, image=wanted.image, media_type=fetched.media_type)
        documents = _Documents(repository, wanted.image)
        if isinstance(document, Index):
            return resolve(document.manifests, documents.read, wanted)
        return complete(fetched.content, document, documents.read(document.config), wanted)


class _Documents:
    """Reads what descriptors of one repository lead to, verified."""

    def __init__(self, repository: RepositoryClient, image: str) -> None:
        self._repository = repository
        self._image = image

    def read(self, descriptor: Descriptor) -> bytes:
        if descriptor.media_type in MANIFESTS | INDEXES:
            return self._read_manifest(descriptor)
        return self._repository.config(descriptor)

    def _read_manifest(self, descriptor: Descriptor) -> bytes:
        fetched = self._repository.manifest(descriptor.digest)
        if fetched.media_type not in GENERIC | {None, descriptor.media_type}:
            reason = f"its index calls {descriptor.digest} {descriptor.media_type}, its registry {fetched.media_type}"
            raise InvalidImage(image=self._image, reason=reason)
        if len(fetched.content) != descriptor.size_bytes:
            subject = f"manifest {descriptor.digest} of {self._image}"
            raise SizeMismatch(subject=subject, expected=descriptor.size_bytes, actual=len(fetched.content))
        return fetched.content
