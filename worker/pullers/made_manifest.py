# SPDX-License-Identifier: Apache-2.0
"""The manifest of an image whose source has none: canonical JSON, so that one image always has one digest."""

import json
from collections.abc import Sequence

from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest
from worker.oci.media_types import OCI_CONFIG, OCI_MANIFEST


def canonical_json(document: object) -> bytes:
    """Encode a document in the one way that two encodings of it share."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def make_manifest(config: bytes, layers: Sequence[Descriptor], *, config_media_type: str = OCI_CONFIG) -> bytes:
    """Return an OCI manifest of a configuration and of layers, base first."""
    config_descriptor = Descriptor(media_type=config_media_type, digest=Digest.of(config), size_bytes=len(config))
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _document(config_descriptor),
            "layers": [_document(layer) for layer in layers],
        }
    )


def _document(descriptor: Descriptor) -> dict[str, str | int]:
    return {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size_bytes}
