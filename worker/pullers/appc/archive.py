# SPDX-License-Identifier: Apache-2.0
"""`Aci`: an archive that was read once, as it came: hashed, adapted to a layer, and put into a file without a name."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from typing_extensions import override

from worker.errors import InvalidImage
from worker.layers.ahead import Ahead
from worker.layers.limits import LayerLimits
from worker.layers.refusal import Excess, Refusal, shown
from worker.oci.appc_manifest import AppcDependency, AppcManifest
from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest
from worker.oci.media_types import OCI_LAYER
from worker.pullers.appc.adapt import Adapter
from worker.pullers.appc.inflate import inflate_aci
from worker.pullers.appc.known import KnownAci
from worker.pullers.appc.layer import Layer, SpooledLayer
from worker.pullers.content import Extent
from worker.pullers.spool import spooled
from worker.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Aci:
    """One archive.

    Attributes:
        image_id: The sha512 of its uncompressed tar.
        content: Its manifest, byte for byte.
        manifest: The same, parsed.
        layer: Its rootfs.
        sizes_bytes: As it came, and uncompressed.
    """

    image_id: Digest
    content: bytes = field(repr=False)
    manifest: AppcManifest
    layer: Layer
    sizes_bytes: frozenset[int]

    @property
    def dependencies(self) -> tuple[AppcDependency, ...]:
        """Those that its manifest names."""
        return self.manifest.dependencies

    def described(self, tag: str) -> KnownAci:
        """Return what is to be known of it, under the name that its source has for this version of it."""
        return KnownAci(
            tag=tag,
            image_id=self.image_id,
            manifest=self.content,
            layer=self.layer.descriptor,
            sizes_bytes=self.sizes_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spool:
    """Where archives go and how far they may go.

    Attributes:
        directory: Of the unnamed files.
        settings: Limits.
    """

    directory: Path
    settings: Settings

    @property
    def limits(self) -> LayerLimits:
        """Those of a layer."""
        return LayerLimits.from_settings(self.settings)


class CountedChunks(Iterator[bytes]):
    """Chunks that are counted as they pass; beyond `max_bytes` iterating raises `Excess`.

    Attributes:
        size_bytes: So far.
    """

    def __init__(self, chunks: Iterator[bytes], *, max_bytes: int) -> None:
        self.size_bytes = 0
        self._chunks = chunks
        self._max_bytes = max_bytes

    @override
    def __iter__(self) -> Self:
        return self

    @override
    def __next__(self) -> bytes:
        chunk = next(self._chunks)
        self.size_bytes += len(chunk)
        if self.size_bytes > self._max_bytes:
            raise Excess("bytes", self._max_bytes)
        return chunk


class HashedChunks(CountedChunks):
    """Chunks that are also hashed, with `algorithm`."""

    def __init__(self, chunks: Iterator[bytes], algorithm: str, *, max_bytes: int) -> None:
        super().__init__(chunks, max_bytes=max_bytes)
        self._algorithm = algorithm
        self._hasher = hashlib.new(algorithm)

    @override
    def __next__(self) -> bytes:
        chunk = super().__next__()
        self._hasher.update(chunk)
        return chunk

    @property
    def digest(self) -> Digest:
        """Of what has passed so far."""
        return Digest(self._algorithm, self._hasher.hexdigest())


@contextmanager
def read_aci(chunks: Iterator[bytes], *, spool: Spool, image: str) -> Iterator[Aci]:
    """Read an archive, compressed or not, from its first byte; its layer is there for the context's time.

    Cost: disk space for the uncompressed archive.

    Raises:
        InvalidImage: It is no ACI, or a corrupt, hostile or too large one.
        StorageExhausted: The spool directory's filesystem is full.
    """
    limits, max_bytes = spool.limits, spool.settings.max_layer_bytes
    adapter = Adapter(limits, max_manifest_bytes=spool.settings.max_manifest_bytes)
    came = CountedChunks(chunks, max_bytes=max_bytes)
    plain = HashedChunks(inflate_aci(came, max_window_bytes=limits.max_window_bytes), "sha512", max_bytes=max_bytes)
    with ExitStack() as spooling:
        with Ahead(plain) as content:
            layer = spooling.enter_context(spooled_layer(adapter.adapt(content), spool=spool, image=image))
        yield Aci(
            image_id=plain.digest,
            content=adapter.manifest,
            manifest=AppcManifest.parse(adapter.manifest, image=image),
            layer=layer,
            sizes_bytes=frozenset({came.size_bytes, plain.size_bytes}),
        )


@contextmanager
def spooled_layer(chunks: Iterator[bytes], *, spool: Spool, image: str) -> Iterator[Layer]:
    """Put a layer's tar into an unnamed file for the context's time.

    Raises:
        InvalidImage: For what iterating refuses.
        StorageExhausted: The spool directory's filesystem is full.
    """
    max_bytes = spool.settings.max_layer_bytes
    hashed = HashedChunks(chunks, "sha256", max_bytes=max_bytes)
    refusable = _blaming(hashed, image)
    with spooled(refusable, spool_dir=spool.directory, max_bytes=max_bytes, image=image) as file:
        descriptor = Descriptor(media_type=OCI_LAYER, digest=hashed.digest, size_bytes=hashed.size_bytes)
        yield SpooledLayer(descriptor, Extent(file, 0, hashed.size_bytes))


def _blaming(chunks: Iterator[bytes], image: str) -> Iterator[bytes]:
    """Turn what the reader of archives raises into errors that name the image."""
    try:
        yield from chunks
    except Refusal as refusal:
        place = f" at {shown(refusal.entry)!r}" if refusal.entry else ""
        raise InvalidImage(image=image, reason=f"its archive is refused{place}: {refusal}") from refusal
    except Excess as excess:
        raise InvalidImage(image=image, reason=f"its archive exceeds {excess}") from excess
