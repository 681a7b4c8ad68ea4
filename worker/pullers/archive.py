# SPDX-License-Identifier: Apache-2.0
"""Images in what `docker save` and `podman save` write: `docker-archive:PATH`, `docker-archive:PATH:name`, `…:@0`.

Differences and limits: the archive is read where it is, single members at a time. A compressed one (gzip, zstd) cannot
be, nor one at a URL: these go, inflated, into an unnamed file of the spool directory first. Docker 25 and later write
an OCI layout, which is read as one; what older versions and Podman write has no OCI manifest, so that one is made up,
always the same for the same image; archives from before Docker 1.10, with `repositories` but no `manifest.json`, have
no configuration either.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from worker.errors import ImageNotFound, InvalidImage
from worker.layers.inflate import inflate
from worker.layers.limits import LayerLimits
from worker.layers.refusal import Refusal
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource, Transport
from worker.puller import Credential, Puller, RemoteImage
from worker.pullers.content import Extent, reading
from worker.pullers.layout import LAYOUT_FILE, open_layout
from worker.pullers.legacy import REPOSITORIES_FILE, open_legacy
from worker.pullers.members import ArchiveContent, index_members
from worker.pullers.remote_archive import fetched
from worker.pullers.resolve import Wanted
from worker.pullers.saved import MANIFEST_FILE, open_saved
from worker.pullers.spool import spooled
from worker.settings import Settings

Location = Path | str
"""Where an archive is: a path on this node, or a URL."""

_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh")


class ArchivePuller(Puller):
    """Reads images from archives on this node.

    Args:
        settings: Limits.
        spool_dir: Where compressed archives are inflated.
    """

    transports: ClassVar[frozenset[Transport]] = frozenset({Transport.DOCKER_ARCHIVE})

    def __init__(self, settings: Settings, *, spool_dir: Path) -> None:
        self._settings = settings
        self._spool_dir = spool_dir

    @override
    def open(
        self, source: ImageSource, *, platform: Platform, credential: Credential | None
    ) -> AbstractContextManager[RemoteImage]:
        location = source.url or source.path or Path("/")
        if credential is not None and not credential.is_for(source.host):
            credential = None
        return self.open_at([location], source, platform=platform, credential=credential)

    @contextmanager
    def open_at(
        self,
        locations: Sequence[Location],
        source: ImageSource,
        *,
        platform: Platform,
        credential: Credential | None = None,
    ) -> Iterator[RemoteImage]:
        """Resolve the image that `source` selects in the first of several archives that is there.

        Args:
            locations: All paths, or all URLs of one host; at least one.
            source: Selects, and is named in errors.
            platform: What the image has to run on.
            credential: For URLs.
        """
        wanted = Wanted(image=str(source), platform=platform, max_layers=self._settings.max_layers)
        with self._plain(locations, wanted.image, credential) as plain:
            image = open_archive(plain, source, wanted, self._settings)
            if source.url is not None:
                # Whether the credential was needed nobody can tell: it goes with every request.
                image.credential, image.is_private = credential, credential is not None
            yield image

    @contextmanager
    def _plain(self, locations: Sequence[Location], image: str, credential: Credential | None) -> Iterator[int]:
        """Give the descriptor of the archive, or of a file with what it inflates to."""
        urls = [location for location in locations if isinstance(location, str)]
        if urls:
            with (
                fetched(urls, self._settings, image=image, credential=credential) as chunks,
                self._spooled(chunks, image) as descriptor,
            ):
                yield descriptor
            return
        with _opened([Path(location) for location in locations], image=image) as archive:
            if not archive.read(0, 6).startswith(_COMPRESSED):
                yield archive.descriptor
                return
            with self._spooled(archive.chunks(), image) as descriptor:
                yield descriptor

    def _spooled(self, chunks: Iterator[bytes], image: str) -> AbstractContextManager[int]:
        inflated = _inflated(chunks, image, LayerLimits.from_settings(self._settings).max_window_bytes)
        max_bytes = self._settings.max_layer_bytes
        return spooled(inflated, spool_dir=self._spool_dir, max_bytes=max_bytes, image=image)


def open_archive(descriptor: int, source: ImageSource, wanted: Wanted, settings: Settings) -> RemoteImage:
    """Resolve the image that `source` selects in an uncompressed archive.

    The descriptor stays open for as long as the image is used.

    Raises:
        ImageNotFound: The archive has no such image, or several and none is selected.
        InvalidImage: It is no archive of images.
    """
    image = wanted.image
    with reading(image):
        members = index_members(descriptor, image=image, max_header_bytes=settings.max_header_bytes)
    content = ArchiveContent(descriptor, members, image=image, max_document_bytes=settings.max_manifest_bytes)
    if LAYOUT_FILE in content:
        return open_layout(content, source, wanted)
    if MANIFEST_FILE in content:
        return open_saved(content, source, wanted)
    if REPOSITORIES_FILE in content:
        max_window_bytes = LayerLimits.from_settings(settings).max_window_bytes
        return open_legacy(content, source, wanted, max_window_bytes=max_window_bytes)
    reason = f"its archive has neither {LAYOUT_FILE} nor {MANIFEST_FILE} nor {REPOSITORIES_FILE}"
    raise InvalidImage(image=image, reason=reason)


@contextmanager
def _opened(paths: Sequence[Path], *, image: str) -> Iterator[Extent]:
    """Open the first of the files that is there."""
    path = next(filter(os.path.lexists, paths), None)
    if path is None and len(paths) > 1:
        raise ImageNotFound(image=image, reason=f"there is none of {', '.join(map(str, paths))}")
    path = path or paths[0]
    with reading(image):
        # Without O_NONBLOCK a fifo would hold the worker for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidImage(image=image, reason=f"{path} is not a regular file")
        yield Extent(descriptor, 0, status.st_size)
    finally:
        os.close(descriptor)


def _inflated(chunks: Iterator[bytes], image: str, max_window_bytes: int) -> Iterator[bytes]:
    try:
        with reading(image):
            yield from inflate(chunks, max_window_bytes=max_window_bytes)
    except Refusal as refusal:
        raise InvalidImage(image=image, reason=f"its archive is refused: {refusal}") from refusal
