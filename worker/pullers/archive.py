# SPDX-License-Identifier: Apache-2.0
"""Images in what `docker save` and `podman save` write: `docker-archive:PATH`, `docker-archive:PATH:name`, `…:@0`.

Differences and limits: the archive is read where it is, single members at a time. A compressed one (gzip, zstd) cannot
be, and is inflated into an unnamed file of the spool directory first. Docker 25 and later write an OCI layout, which is
read as one; what older versions and Podman write has no OCI manifest, so that one is made up, always the same for the
same image; archives from before Docker 1.10, with `repositories` but no `manifest.json`, have no configuration either.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from worker.errors import InvalidImage
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
from worker.pullers.resolve import Wanted
from worker.pullers.saved import MANIFEST_FILE, open_saved
from worker.pullers.spool import spooled
from worker.settings import Settings

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
    @contextmanager
    def open(self, source: ImageSource, *, platform: Platform, credential: Credential | None) -> Iterator[RemoteImage]:
        wanted = Wanted(image=str(source), platform=platform, max_layers=self._settings.max_layers)
        with (
            _opened(source.path or Path("/"), image=wanted.image) as archive,
            self._plain(archive, wanted.image) as plain,
        ):
            yield open_archive(plain, source, wanted, self._settings)

    @contextmanager
    def _plain(self, archive: Extent, image: str) -> Iterator[int]:
        """Give the descriptor of the archive, or of a file with what it inflates to."""
        if not archive.read(0, 6).startswith(_COMPRESSED):
            yield archive.descriptor
            return
        chunks = _inflated(archive, image, LayerLimits.from_settings(self._settings).max_window_bytes)
        max_bytes = self._settings.max_layer_bytes
        with spooled(chunks, spool_dir=self._spool_dir, max_bytes=max_bytes, image=image) as descriptor:
            yield descriptor


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
def _opened(path: Path, *, image: str) -> Iterator[Extent]:
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


def _inflated(archive: Extent, image: str, max_window_bytes: int) -> Iterator[bytes]:
    try:
        with reading(image):
            yield from inflate(archive.chunks(), max_window_bytes=max_window_bytes)
    except Refusal as refusal:
        raise InvalidImage(image=image, reason=f"its archive is refused: {refusal}") from refusal
