# SPDX-License-Identifier: Apache-2.0
"""Images by name from a directory of archives, as the ancestor's local puller had them: `PROVISIONER_ARCHIVES`.

Model
    When it is set, no registry is asked: `name:tag` is looked for in these files, relative to it, and the first that is
    there is taken, whatever else is::

        <name>@<digest>.tar       if a digest was given
        <name>:<tag>.tar          `latest` if no tag was given
        <name>.tar                if the tag is `latest`

    each for every spelling of the name, the shortest first: `busybox`, `library/busybox`, `docker.io/library/busybox`;
    for other registries there is one, `host/repository`. So `abc` is in `abc:latest.tar` or `abc.tar`, and
    `library/x:1` in `x:1.tar` or `library/x:1.tar`.

Differences and limits: the archive must have the image under that name, in any spelling. If a digest was given, the
manifest, made up where the archive has none, must have it. A directory may be a URL instead, see `remote_archive`;
secrets are not used.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from worker.errors import DigestMismatch, InvalidArgument
from worker.oci.platform import Platform
from worker.oci.reference import DEFAULT_TAG, DOCKER_HUB, ImageSource, Reference, Transport
from worker.puller import Credential, Puller, RemoteImage
from worker.pullers.archive import ArchivePuller, Location
from worker.pullers.remote_archive import check_protocol
from worker.settings import Settings

_OFFICIAL = "library/"


class ArchivesPuller(Puller):
    """Takes the place of the registries' puller.

    Args:
        settings: Says where the archives are.
        archives: Opens one.

    Raises:
        InvalidArgument: The setting is neither an absolute path nor a URL of an allowed protocol.
    """

    transports: ClassVar[frozenset[Transport]] = frozenset({Transport.DOCKER})

    def __init__(self, settings: Settings, archives: ArchivePuller) -> None:
        self._directory = settings.archives or ""
        self._archives = archives
        if "://" in self._directory:
            check_protocol(self._directory, settings, argument="PROVISIONER_ARCHIVES")
        elif not self._directory.startswith("/"):
            reason = "it must be an absolute path or a URL"
            raise InvalidArgument(argument="PROVISIONER_ARCHIVES", value=self._directory, reason=reason)

    @override
    @contextmanager
    def open(self, source: ImageSource, *, platform: Platform, credential: Credential | None) -> Iterator[RemoteImage]:
        reference = source.reference
        if reference is None:
            raise InvalidArgument(argument="image", value=str(source), reason="it names no image")
        locations = [self._location(name) for name in archive_names(reference)]
        # By its name without the digest, which no archive has; by a digest alone only if there is no choice.
        named = replace(reference, digest=None) if reference.tag else None
        with self._archives.open_at(locations, replace(source, reference=named), platform=platform) as image:
            if reference.digest not in (None, image.digest):
                subject, expected = f"image {source}", str(reference.digest)
                raise DigestMismatch(subject=subject, expected=expected, actual=str(image.digest))
            yield image

    def _location(self, name: str) -> Location:
        if "://" in self._directory:
            return f"{self._directory.rstrip('/')}/{name}"
        return Path(self._directory) / name


def archive_names(reference: Reference) -> tuple[str, ...]:
    """Return the files an image may be in, relative, in the order in which they are looked for."""
    suffixes = [f"@{reference.digest}"] if reference.digest else []
    suffixes += [f":{reference.tag}"] if reference.tag else []
    suffixes += [""] if reference.tag == DEFAULT_TAG else []
    return tuple(f"{name}{suffix}.tar" for suffix in suffixes for name in _spellings(reference))


def _spellings(reference: Reference) -> list[str]:
    if reference.registry != DOCKER_HUB:
        return [reference.name]
    repository = reference.repository
    official = repository.removeprefix(_OFFICIAL)
    short = [official] if repository.startswith(_OFFICIAL) and "/" not in official else []
    return [*short, repository, reference.name]
