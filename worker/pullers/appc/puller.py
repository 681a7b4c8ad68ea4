# SPDX-License-Identifier: Apache-2.0
"""`AppcPuller`: App Container images by simple discovery, with all they depend on.

Differences and limits: what an archive depends on, and which layer it makes, is known when it has been read. So each
is spooled into an unnamed file of the spool directory, at the cost of its uncompressed size, and layers are read from
there. What it told is remembered: an archive that its source says is unchanged is fetched again only if its layer is
wanted. After a connection broke an archive is fetched from its beginning. Credentials do not matter: what is fetched is
what anybody may have.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from worker.errors import InvalidImage
from worker.oci.appc import AppcReference, platform_labels
from worker.oci.appc_manifest import AppcDependency
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource, Transport
from worker.puller import Credential, Puller, RemoteImage
from worker.pullers.appc.archive import Aci, Spool, spooled_layer
from worker.pullers.appc.dependencies import resolve_order
from worker.pullers.appc.fetch import Fetch
from worker.pullers.appc.image import AppcImage
from worker.pullers.appc.known import KnownAcis
from worker.pullers.appc.layer import Layer
from worker.pullers.appc.source import archive_path, make_source
from worker.pullers.appc.whitelist import keep_listed
from worker.pullers.resolve import Wanted
from worker.settings import Settings


class AppcPuller(Puller):
    """Fetches App Container images.

    Args:
        settings: Where archives are found; limits.
        spool_dir: Where archives are spooled.
        known_dir: Where it is remembered what archives told.
    """

    transports: ClassVar[frozenset[Transport]] = frozenset({Transport.APPC})

    def __init__(self, settings: Settings, *, spool_dir: Path, known_dir: Path) -> None:
        self._settings = settings
        self._source = make_source(settings)
        self._known = KnownAcis(known_dir)
        self._spool = Spool(directory=spool_dir, settings=settings)

    @override
    @contextmanager
    def open(self, source: ImageSource, *, platform: Platform, credential: Credential | None) -> Iterator[RemoteImage]:
        image = str(source)
        asked = AppcDependency(reference=AppcReference.parse(source.ref or ""), size_bytes=None)
        defaults = platform_labels(platform)
        with ExitStack() as files:
            fetch = Fetch(
                source=self._source,
                spool=self._spool,
                known=self._known,
                files=files,
                image=image,
                defaults={name: dict(asked.reference.labels).get(name, value) for name, value in defaults.items()},
                asked_path=archive_path(asked.reference, defaults=defaults, image=image),
            )
            acis = resolve_order(asked, fetch.load, image=image)
            wanted = Wanted(image=image, platform=platform, max_layers=self._settings.max_layers)
            yield AppcImage(acis, _Layers(self._spool, files, image).of(acis), wanted)


class _Layers:
    """Makes layers of archives, without what their whitelists leave out."""

    def __init__(self, spool: Spool, files: ExitStack, image: str) -> None:
        self._spool = spool
        self._files = files
        self._image = image

    def of(self, acis: Sequence[Aci]) -> list[Layer]:
        """Return the layers of archives, in their order.

        The asked image's whitelist holds for all of them, a dependency's for its own files.

        Raises:
            InvalidImage: A dependency with dependencies of its own has a whitelist.
        """
        *below, asked = acis
        all_over = asked.manifest.path_whitelist
        return [self._layer(aci, all_over) for aci in below] + [self._listed(asked.layer, all_over)]

    def _layer(self, aci: Aci, all_over: frozenset[str]) -> Layer:
        own = aci.manifest.path_whitelist
        if own and aci.dependencies:
            reason = f"its dependency {aci.manifest.name} has a pathWhitelist and dependencies, which is not supported"
            raise InvalidImage(image=self._image, reason=reason)
        return self._listed(aci.layer, own, all_over)

    def _listed(self, layer: Layer, *whitelists: frozenset[str]) -> Layer:
        """Return the layer, or a new one with only what every whitelist that says anything lists."""
        if not any(whitelists):
            return layer
        with layer.open() as chunks:
            listed = chunks
            for whitelist in filter(None, whitelists):
                listed = keep_listed(listed, whitelist, limits=self._spool.limits)
            return self._files.enter_context(spooled_layer(listed, spool=self._spool, image=self._image))
