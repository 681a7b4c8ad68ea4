# SPDX-License-Identifier: Apache-2.0
"""`AppcImage`: archives, base first, as one image whose configuration holds what Appc says of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from typing_extensions import override

from worker.oci.appc import image_id_text, platform_members
from worker.oci.appc_app import runtime_config
from worker.oci.descriptor import Descriptor
from worker.oci.manifest import Manifest
from worker.oci.media_types import APPC_CONFIG
from worker.puller import RemoteImage
from worker.pullers.appc.archive import Aci
from worker.pullers.appc.layer import Layer
from worker.pullers.content import reading
from worker.pullers.made_manifest import canonical_json, make_manifest
from worker.pullers.resolve import Wanted, complete


class AppcImage(RemoteImage):
    """An image whose layers are read from the spool.

    Args:
        acis: Base first, at least one; the last one's manifest is the image's.
        layers: Of the archives, in their order; they can be opened for as long as the image is used.
        wanted: What it has to be.

    Raises:
        InvalidImage: It has too many layers.
        PlatformNotFound: It is for a platform that does not run here.
    """

    def __init__(self, acis: Sequence[Aci], layers: Sequence[Layer], wanted: Wanted) -> None:
        self.config = make_config(acis, layers)
        descriptors = [layer.descriptor for layer in layers]
        self.manifest = make_manifest(self.config, descriptors, config_media_type=APPC_CONFIG)
        manifest = Manifest.parse(self.manifest, image=wanted.image)
        resolved = complete(self.manifest, manifest, self.config, wanted)
        self.digest = resolved.digest
        self.image_config = resolved.image_config
        self.layers = resolved.layers
        self._image = wanted.image
        self._layers = {layer.descriptor.digest: layer for layer in layers}

    @override
    @contextmanager
    def blob(self, descriptor: Descriptor, *, offset: int = 0) -> Iterator[Iterator[bytes]]:
        with self._layers[descriptor.digest].open(offset) as chunks:
            yield _reported(chunks, self._image)


def _reported(chunks: Iterator[bytes], image: str) -> Iterator[bytes]:
    with reading(image):
        yield from chunks


def make_config(acis: Sequence[Aci], layers: Sequence[Layer]) -> bytes:
    """Return the configuration: what runs it needs as OCI says it, and under `appc` what Appc says.

    Source: image-spec v1.1.1, config.md, "Properties".
    """
    manifest = acis[-1].manifest
    app = manifest.document.get("app")
    return canonical_json(
        {
            **platform_members(manifest.labels),
            "config": {} if app is None else runtime_config(app),
            "rootfs": {"type": "layers", "diff_ids": [str(layer.descriptor.digest) for layer in layers]},
            "appc": {"imageIDs": [image_id_text(aci.image_id) for aci in acis], "manifest": manifest.document},
        }
    )
