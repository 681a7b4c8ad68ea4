# SPDX-License-Identifier: Apache-2.0
"""Images in an OCI layout: `oci:PATH`, `oci:PATH:ref`, `oci:PATH:@0`.

Differences and limits: the path is on this node. Blobs may be symbolic links, as build systems make them, as long as
they lead to regular files inside the layout: a layout must not make a worker read other files of its host.

Source: image-spec v1.1.1, image-layout.md.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final

from typing_extensions import override

from worker.errors import ImageNotFound, InvalidImage
from worker.oci.descriptor import Descriptor
from worker.oci.document import decode_object
from worker.oci.manifest import Index
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource, Transport
from worker.puller import Credential, Puller, RemoteImage
from worker.pullers.choice import choose
from worker.pullers.content import Content, Extent, LocalImage, reading
from worker.pullers.resolve import Wanted, resolve
from worker.settings import Settings

LAYOUT_FILE: Final = "oci-layout"
INDEX_FILE: Final = "index.json"
_REF_NAME = "org.opencontainers.image.ref.name"
_IMAGE_NAME = "io.containerd.image.name"
_LAYOUT_VERSION = "1.0.0"


class LayoutPuller(Puller):
    """Reads images from OCI layouts on this node."""

    transports: ClassVar[frozenset[Transport]] = frozenset({Transport.OCI})

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @override
    @contextmanager
    def open(self, source: ImageSource, *, platform: Platform, credential: Credential | None) -> Iterator[RemoteImage]:
        max_bytes = self._settings.max_manifest_bytes
        with directory_content(source.path or Path("/"), image=str(source), max_document_bytes=max_bytes) as content:
            wanted = Wanted(image=str(source), platform=platform, max_layers=self._settings.max_layers)
            yield open_layout(content, source, wanted)


def open_layout(content: Content, source: ImageSource, wanted: Wanted) -> RemoteImage:
    """Resolve the image that `source` selects in the layout that `content` holds.

    Raises:
        ImageNotFound: The layout has no such image, or several and none is selected.
        PlatformNotFound: It has none for the platform.
        InvalidImage: It is no layout of a version we know.
    """
    _check_version(content)
    index = Index.parse(content.read_document(INDEX_FILE), image=content.image)
    entries = choose(index.manifests, source, names=_names, identity=lambda entry: entry.digest)
    return LocalImage(content, resolve(entries, content.read_blob, wanted))


def _check_version(content: Content) -> None:
    document = decode_object(content.read_document(LAYOUT_FILE), image=content.image, subject=LAYOUT_FILE)
    version = document.get("imageLayoutVersion")
    if version != _LAYOUT_VERSION:
        reason = f"its layout has version {version!r:.40}, not {_LAYOUT_VERSION}"
        raise InvalidImage(image=content.image, reason=reason)


def _names(entry: Descriptor) -> tuple[str, ...]:
    return tuple(name for key in (_IMAGE_NAME, _REF_NAME) if (name := entry.annotations.get(key)))


class DirectoryContent(Content):
    """Files below one directory.

    Args:
        directory: Descriptor of the directory, open for as long as the content is used.
    """

    def __init__(self, directory: int, *, image: str, max_document_bytes: int) -> None:
        super().__init__(image=image, max_document_bytes=max_document_bytes)
        self._directory = directory
        self._root = _real_path(directory)

    @override
    @contextmanager
    def open(self, path: str) -> Iterator[Extent]:
        try:
            # Without O_NONBLOCK a fifo in the place of a blob would hold the worker for ever.
            with reading(self.image):
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._directory)
        except ImageNotFound as error:
            raise InvalidImage(image=self.image, reason=f"it has no {path}") from error
        try:
            yield Extent(descriptor, 0, self._check_file(descriptor, path))
        finally:
            os.close(descriptor)

    def _check_file(self, descriptor: int, path: str) -> int:
        """Return the size of an open file that is a regular one and inside the directory, wherever links led."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidImage(image=self.image, reason=f"{path} is not a regular file")
        # The kernel's word on what was opened, which no exchange of a link between two looks can falsify.
        if self._root not in _real_path(descriptor).parents:
            raise InvalidImage(image=self.image, reason=f"{path} leads out of the layout")
        return status.st_size


def _real_path(descriptor: int) -> Path:
    """Return where an open file lies, all links followed. Source: proc(5), /proc/pid/fd/."""
    return Path(f"/proc/self/fd/{descriptor}").readlink()


@contextmanager
def directory_content(directory: Path, *, image: str, max_document_bytes: int) -> Iterator[Content]:
    """Open a directory's files.

    Raises:
        ImageNotFound: There is no such directory.
        AccessDenied: This process may not read it.
    """
    with reading(image):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield DirectoryContent(descriptor, image=image, max_document_bytes=max_document_bytes)
    finally:
        os.close(descriptor)
