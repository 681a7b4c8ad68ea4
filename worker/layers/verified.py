# SPDX-License-Identifier: Apache-2.0
"""Chunks that are hashed and counted as they pass: once the last one has been taken, they are what they should be.

Whoever takes chunks may act on them before the end, so what it makes must stay invisible until then.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Self

from typing_extensions import override

from worker.errors import DigestMismatch, SizeMismatch
from worker.layers.refusal import Excess
from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest

_BLOB = "layer blob"
_TAR = "uncompressed layer"


class BlobChunks(Iterator[bytes]):
    """The blob as it came, checked against its descriptor.

    Iterating raises `SizeMismatch` at the first byte too many or at an early end, `DigestMismatch` at the end.

    Args:
        chunks: The blob from its first byte; any sizes.
        descriptor: What the blob must be.
        on_progress: Called with the length of each chunk; what it raises goes through.
    """

    def __init__(self, chunks: Iterable[bytes], descriptor: Descriptor, *, on_progress: Callable[[int], None]) -> None:
        self._chunks = iter(chunks)
        self._descriptor = descriptor
        self._on_progress = on_progress
        self._hasher = descriptor.digest.hasher()
        self._bytes = 0

    @override
    def __iter__(self) -> Self:
        return self

    @override
    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self._check_end()
            raise
        self._bytes += len(chunk)
        if self._bytes > self._descriptor.size_bytes:
            raise SizeMismatch(subject=self._subject, expected=self._descriptor.size_bytes, actual=self._bytes)
        self._hasher.update(chunk)
        self._on_progress(len(chunk))
        return chunk

    def drain(self) -> None:
        """Take what is left, so that a blob which is not what it should be is blamed before its content.

        Raises:
            SizeMismatch: It is longer or shorter than its descriptor says.
            DigestMismatch: It is something else.
        """
        for _ in self:
            pass

    @property
    def _subject(self) -> str:
        return f"{_BLOB} {self._descriptor.digest}"

    def _check_end(self) -> None:
        if self._bytes != self._descriptor.size_bytes:
            raise SizeMismatch(subject=self._subject, expected=self._descriptor.size_bytes, actual=self._bytes)
        _check_digest(_BLOB, self._descriptor.digest, self._hasher.hexdigest())


class TarChunks(Iterator[bytes]):
    """The uncompressed tar, checked against its DiffID.

    Iterating raises `Excess` beyond `max_bytes`, `DigestMismatch` at the end.

    Attributes:
        bytes_taken: So far; the tar's size once the iteration is over.
    """

    def __init__(self, chunks: Iterator[bytes], diff_id: Digest, *, max_bytes: int) -> None:
        self.bytes_taken = 0
        self._chunks = chunks
        self._diff_id = diff_id
        self._max_bytes = max_bytes
        self._hasher = diff_id.hasher()

    @override
    def __iter__(self) -> Self:
        return self

    @override
    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks)
        except StopIteration:
            _check_digest(_TAR, self._diff_id, self._hasher.hexdigest())
            raise
        self.bytes_taken += len(chunk)
        if self.bytes_taken > self._max_bytes:
            raise Excess("uncompressed bytes", self._max_bytes)
        self._hasher.update(chunk)
        return chunk

    def drain(self) -> None:
        """Take what is left.

        Raises:
            DigestMismatch: The tar is something else than its DiffID says.
            Excess: It is too long.
        """
        for _ in self:
            pass


def _check_digest(subject: str, expected: Digest, hex_digest: str) -> None:
    actual = Digest(expected.algorithm, hex_digest)
    if actual != expected:
        raise DigestMismatch(subject=subject, expected=str(expected), actual=str(actual))
