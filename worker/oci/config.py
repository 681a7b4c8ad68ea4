# SPDX-License-Identifier: Apache-2.0
"""`ImageConfig`: the image configuration, as far as a root filesystem needs it.

Source: image-spec v1.1.1, config.md, "Properties".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from worker.errors import InvalidImage
from worker.oci.descriptor import platform_of
from worker.oci.digest import Digest
from worker.oci.document import decode_object, parse_digest
from worker.oci.manifest import Manifest
from worker.oci.platform import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """A parsed configuration.

    Attributes:
        platform: What the image runs on; unknown where the configuration does not say.
        diff_ids: Digests of the uncompressed layers, base first.
        document: The whole configuration, decoded; not to be changed.
    """

    platform: Platform
    diff_ids: tuple[Digest, ...]
    document: Mapping[str, Any] = field(repr=False, hash=False)

    @classmethod
    def parse(cls, content: bytes, *, image: str) -> Self:
        """Parse a configuration.

        Raises:
            InvalidImage: When it is malformed or does not list the DiffIDs of layers.
        """
        document = decode_object(content, image=image, subject="configuration")
        rootfs = document.get("rootfs")
        if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
            raise InvalidImage(image=image, reason="its configuration has no rootfs of type layers")
        diff_ids = rootfs.get("diff_ids")
        if diff_ids is not None and not isinstance(diff_ids, list):
            raise InvalidImage(image=image, reason="its diff_ids are not a list")
        return cls(
            platform=platform_of(document, image=image),
            diff_ids=tuple(parse_digest(text, image=image, subject="a DiffID") for text in diff_ids or ()),
            document=document,
        )


def check_layers(manifest: Manifest, config: ImageConfig, *, image: str, max_layers: int) -> None:
    """Check that manifest and configuration speak of the same layers, at least one and not too many.

    Raises:
        InvalidImage: When they do not.
    """
    layers, diff_ids = len(manifest.layers), len(config.diff_ids)
    if layers != diff_ids:
        reason = f"its manifest lists {layers} layers but its configuration {diff_ids}"
    elif layers > max_layers:
        reason = f"it has {layers} layers, more than the {max_layers} allowed"
    elif not layers:
        reason = "it has no layers"
    else:
        return
    raise InvalidImage(image=image, reason=reason)
