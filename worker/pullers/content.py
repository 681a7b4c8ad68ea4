# SPDX-License-Identifier: Apache-2.0
"""`Content`: the files of an image that lies on this machine, in a directory or in an archive."""

import abc
import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from typing_extensions import override

from worker.errors import AccessDenied, DigestMismatch, ImageNotFound, InvalidImage, RegistryUnavailable, SizeMismatch
from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest
from worker.puller import RemoteImage
from worker.pullers.resolve import ResolvedImage
from worker.settings import MIB

CHUNK_BYTES = MIB
# ENXIO is what opening a socket says.
_NOTHING_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO})


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes in an open file. Reading moves no file position, so threads may share the file.

    Attributes:
        descriptor: Of the open file, which the extent does not own.
        offset: Of the first byte.
        size_bytes: How many there are.
    """

    descriptor: int
    offset: int
    size_bytes: int

    def read(self, start: int, size_bytes: int) -> bytes:
        """Return up to `size_bytes` from `start`; fewer at the end."""
        return os.pread(self.descriptor, max(min(size_bytes, self.size_bytes - start), 0), self.offset + start)

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """Yield all bytes from `start` in chunks of 1 MiB; ends early when the file has been cut short meanwhile."""
        while chunk := self.read(start, CHUNK_BYTES):
            yield chunk
            start += len(chunk)


class Content(abc.ABC):
    """Files by their relative path, such as `index.json` or `blobs/sha256/<hex>`.

    Attributes:
        image: Named in errors.
        max_document_bytes: The most a document may have.
    """

    def __init__(self, *, image: str, max_document_bytes: int) -> None:
        self.image = image
        self.max_document_bytes = max_document_bytes

    @abc.abstractmethod
    def open(self, path: str) -> AbstractContextManager[Extent]:
        """Open a file; safe to call from several threads at once.

        Raises:
            InvalidImage: There is no such file, or it is no regular file or lies elsewhere.
        """

    def read_document(self, path: str) -> bytes:
        """Return a whole file that must be small.

        Raises:
            InvalidImage: As `open`; or it has more than `max_document_bytes`.
        """
        with self.open(path) as extent:
            if extent.size_bytes > self.max_document_bytes:
                reason = f"{path} has {extent.size_bytes} bytes, more than the {self.max_document_bytes} allowed"
                raise InvalidImage(image=self.image, reason=reason)
            return b"".join(extent.chunks())

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """Return a document of a layout, verified.

        Raises:
            DigestMismatch: It is not what the descriptor names.
            SizeMismatch: It is longer or shorter than the descriptor says.
        """
        path = blob_path(descriptor.digest)
        content = self.read_document(path)
        subject = f"{path} of {self.image}"
        if len(content) != descriptor.size_bytes:
            raise SizeMismatch(subject=subject, expected=descriptor.size_bytes, actual=len(content))
        actual = Digest.of(content, algorithm=descriptor.digest.algorithm)
        if actual != descriptor.digest:
            raise DigestMismatch(subject=subject, expected=str(descriptor.digest), actual=str(actual))
        return content


def blob_path(digest: Digest) -> str:
    """Return where a layout keeps a blob. Source: image-spec v1.1.1, image-layout.md, "Blobs"."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


class LocalImage(RemoteImage):
    """An image whose layers are read from `content`.

    Args:
        content: Open for as long as the image is used.
        resolved: What the image is.
        paths: Where a layer's blob lies, for blobs that are not where a layout has them.
    """

    def __init__(self, content: Content, resolved: ResolvedImage, paths: dict[Digest, str] | None = None) -> None:
        self.digest = resolved.digest
        self.manifest = resolved.manifest
        self.config = resolved.config
        self.image_config = resolved.image_config
        self.layers = resolved.layers
        self._content = content
        self._paths = paths or {}

    @override
    @contextmanager
    def blob(self, descriptor: Descriptor, *, offset: int = 0) -> Iterator[Iterator[bytes]]:
        path = self._paths.get(descriptor.digest) or blob_path(descriptor.digest)
        with self._content.open(path) as extent:
            yield _reported(extent.chunks(offset), self._content.image)


def _reported(chunks: Iterator[bytes], image: str) -> Iterator[bytes]:
    with reading(image):
        yield from chunks


@contextmanager
def reading(image: str) -> Iterator[None]:
    """Translate what the operating system says while a source is opened or read, and nothing else.

    Raises:
        ImageNotFound: There is nothing at the path that could be read.
        AccessDenied: This process may not read it.
        RegistryUnavailable: Reading failed; a retry can help.
    """
    try:
        yield
    except PermissionError as error:
        raise AccessDenied(image=image, reason=_explain(error)) from error
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            raise ImageNotFound(image=image, reason=_explain(error)) from error
        raise RegistryUnavailable(registry=image, reason=_explain(error)) from error


def _explain(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
