# SPDX-License-Identifier: Apache-2.0
"""The archives of one image, fetched, or known from before, and each the one that is meant."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from worker.errors import DigestMismatch, ImageNotFound, RegistryUnavailable, SizeMismatch
from worker.oci.appc import image_id_text
from worker.oci.appc_manifest import AppcDependency, AppcManifest
from worker.pullers.appc.archive import Aci, Spool, read_aci
from worker.pullers.appc.known import KnownAci, KnownAcis
from worker.pullers.appc.layer import DistantLayer, Layer
from worker.pullers.appc.source import AciRequest, AciSource, archive_path
from worker.registry.retries import RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """One image being fetched.

    Attributes:
        source: Where archives are.
        spool: Where they go.
        known: Those that were read before.
        files: Closes the spooled archives.
        image: As asked for, for errors.
        defaults: The labels that stand for those a reference does not have.
        asked_path: The name of the archive that was asked for.
    """

    source: AciSource
    spool: Spool
    known: KnownAcis
    files: ExitStack
    image: str
    defaults: Mapping[str, str]
    asked_path: str

    def load(self, wanted: AppcDependency) -> Aci:
        """Return an archive that is the one that is meant; one that is known and has not changed is not fetched.

        Raises:
            DigestMismatch: It has another id.
            SizeMismatch: It has another size.
            ImageNotFound: There is none, or it has another name or other labels.
            InvalidImage: It is malformed.
            RegistryUnavailable: It cannot be had now.
        """
        path = archive_path(wanted.reference, defaults=self.defaults, image=self.image)
        is_asked = path == self.asked_path
        image = self.image if is_asked else f"appc:{wanted.reference} (a dependency of {self.image})"
        request = AciRequest(path=path, image=image, asked_path=self.asked_path)
        known = self.known.get(self.source.place(path))
        aci = self._retries.run(lambda: self._load(request, known))
        self._check(wanted, aci, image)
        return aci

    @property
    def _retries(self) -> RetryPolicy:
        return RetryPolicy(attempts=self.spool.settings.registry_attempts)

    def _load(self, request: AciRequest, known: KnownAci | None) -> Aci:
        with self.source.open(request, known_tag=known.tag if known else None) as found:
            if known is not None and found.chunks is None:
                return self._recalled(request, known)
            aci = self.files.enter_context(read_aci(found.chunks or iter(()), spool=self.spool, image=request.image))
            tag = found.tag()
        if tag is not None:
            self.known.put(self.source.place(request.path), aci.described(tag))
        return aci

    def _recalled(self, request: AciRequest, known: KnownAci) -> Aci:
        return Aci(
            image_id=known.image_id,
            content=known.manifest,
            manifest=AppcManifest.parse(known.manifest, image=request.image),
            layer=DistantLayer(known.layer, lambda: self._again(request, known)),
            sizes_bytes=known.sizes_bytes,
        )

    @contextmanager
    def _again(self, request: AciRequest, known: KnownAci) -> Iterator[Layer]:
        """Fetch a known archive after all: its layer is not in the store."""
        with ExitStack() as files:
            aci = self._retries.run(lambda: self._read(request, files))
            if aci.image_id != known.image_id:
                self.known.forget(self.source.place(request.path))
                reason = "the archive changed while its image was put together"
                raise RegistryUnavailable(registry=request.image, reason=reason)
            yield aci.layer

    def _read(self, request: AciRequest, files: ExitStack) -> Aci:
        with self.source.open(request) as found:
            return files.enter_context(read_aci(found.chunks or iter(()), spool=self.spool, image=request.image))

    def _check(self, wanted: AppcDependency, aci: Aci, image: str) -> None:
        image_id = wanted.reference.image_id
        if image_id is not None and aci.image_id != image_id:
            expected, actual = image_id_text(image_id), image_id_text(aci.image_id)
            raise DigestMismatch(subject=f"archive of {image}", expected=expected, actual=actual)
        if wanted.size_bytes is not None and wanted.size_bytes not in aci.sizes_bytes:
            actual_bytes = min(aci.sizes_bytes)
            raise SizeMismatch(subject=f"archive of {image}", expected=wanted.size_bytes, actual=actual_bytes)
        manifest = aci.manifest
        if reason := wanted.reference.mismatch(manifest.name, manifest.labels, defaults=self.defaults):
            raise ImageNotFound(image=image, reason=f"what is there is another: {reason}")
