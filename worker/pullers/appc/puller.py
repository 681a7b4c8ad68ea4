# SPDX-License-Identifier: Apache-2.0
"""`AppcPuller`: App Container images by simple discovery, with all they depend on.

Differences and limits: what an archive depends on, and which layer it makes, is known when it has been read. So each
is spooled into an unnamed file of the spool directory, at the cost of its uncompressed size, and layers are read from
there. After a connection broke the archive is fetched from its beginning. Credentials do not matter: what is fetched is
what anybody may have.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from worker.errors import DigestMismatch, ImageNotFound, InvalidImage, SizeMismatch
from worker.oci.appc import AppcReference, image_id_text, platform_labels
from worker.oci.appc_manifest import AppcDependency
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource, Transport
from worker.puller import Credential, Puller, RemoteImage
from worker.pullers.appc.archive import Aci, Spool, SpooledLayer, read_aci, spooled_layer
from worker.pullers.appc.dependencies import resolve_order
from worker.pullers.appc.image import AppcImage
from worker.pullers.appc.source import AciRequest, AciSource, archive_path, make_source
from worker.pullers.appc.whitelist import keep_listed
from worker.pullers.resolve import Wanted
from worker.registry.retries import RetryPolicy
from worker.settings import Settings


class AppcPuller(Puller):
    """Fetches App Container images.

    Args:
        settings: Where archives are found; limits.
        spool_dir: Where archives are spooled.
    """

    transports: ClassVar[frozenset[Transport]] = frozenset({Transport.APPC})

    def __init__(self, settings: Settings, *, spool_dir: Path) -> None:
        self._settings = settings
        self._source = make_source(settings)
        self._spool = Spool(directory=spool_dir, settings=settings)

    @override
    @contextmanager
    def open(self, source: ImageSource, *, platform: Platform, credential: Credential | None) -> Iterator[RemoteImage]:
        image = str(source)
        asked = AppcDependency(reference=AppcReference.parse(source.ref or ""), size_bytes=None)
        defaults = platform_labels(platform)
        with ExitStack() as files:
            fetch = _Fetch(
                source=self._source,
                spool=self._spool,
                files=files,
                image=image,
                defaults={name: dict(asked.reference.labels).get(name, value) for name, value in defaults.items()},
                asked_path=archive_path(asked.reference, defaults=defaults, image=image),
            )
            acis = resolve_order(asked, fetch.load, image=image)
            wanted = Wanted(image=image, platform=platform, max_layers=self._settings.max_layers)
            yield AppcImage(acis, fetch.layers(acis), wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fetch:
    """One image being fetched.

    Attributes:
        files: Closes the spooled archives.
        image: As asked for, for errors.
        defaults: The labels that stand for those a reference does not have.
        asked_path: The name of the archive that was asked for.
    """

    source: AciSource
    spool: Spool
    files: ExitStack
    image: str
    defaults: Mapping[str, str]
    asked_path: str

    def load(self, wanted: AppcDependency) -> Aci:
        """Fetch an archive and make sure that it is the one that is meant.

        Raises:
            DigestMismatch: It has another id.
            SizeMismatch: It has another size.
            ImageNotFound: It has another name or other labels.
        """
        path = archive_path(wanted.reference, defaults=self.defaults, image=self.image)
        is_asked = path == self.asked_path
        image = self.image if is_asked else f"appc:{wanted.reference} (a dependency of {self.image})"
        request = AciRequest(path=path, image=image, asked_path=self.asked_path)
        retries = RetryPolicy(attempts=self.spool.settings.registry_attempts)
        aci = retries.run(lambda: self.files.enter_context(self._read(request)))
        self._check(wanted, aci, image)
        return aci

    @contextmanager
    def _read(self, request: AciRequest) -> Iterator[Aci]:
        """Spool an archive; its connection is given back at once, its layer stays for the context's time."""
        with ExitStack() as spooled:
            with self.source.open(request) as chunks:
                aci = spooled.enter_context(read_aci(chunks, spool=self.spool, image=request.image))
            yield aci

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

    def layers(self, acis: Sequence[Aci]) -> list[SpooledLayer]:
        """Return the archives' layers, without what their whitelists leave out.

        The asked image's whitelist holds for all of them, a dependency's for its own files.

        Raises:
            InvalidImage: A dependency with dependencies of its own has a whitelist.
        """
        *below, asked = acis
        all_over = asked.manifest.path_whitelist
        return [self._layer(aci, all_over) for aci in below] + [self._listed(asked.layer, all_over)]

    def _layer(self, aci: Aci, all_over: frozenset[str]) -> SpooledLayer:
        own = aci.manifest.path_whitelist
        if own and aci.dependencies:
            reason = f"its dependency {aci.manifest.name} has a pathWhitelist and dependencies, which is not supported"
            raise InvalidImage(image=self.image, reason=reason)
        return self._listed(aci.layer, own, all_over)

    def _listed(self, layer: SpooledLayer, *whitelists: frozenset[str]) -> SpooledLayer:
        """Return the layer, or a new one with only what every whitelist that says anything lists."""
        chunks, limits = layer.extent.chunks(), self.spool.limits
        for whitelist in filter(None, whitelists):
            chunks = keep_listed(chunks, whitelist, limits=limits)
        if not any(whitelists):
            return layer
        return self.files.enter_context(spooled_layer(chunks, spool=self.spool, image=self.image))
