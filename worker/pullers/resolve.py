# SPDX-License-Identifier: Apache-2.0
"""From a descriptor to one image for one platform: through indexes to the manifest and its configuration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.errors import InvalidImage, PlatformNotFound
from worker.oci.config import ImageConfig, check_layers
from worker.oci.descriptor import Descriptor, available_platforms, select
from worker.oci.digest import Digest
from worker.oci.manifest import Manifest, parse_manifest_or_index
from worker.oci.platform import Platform

MAX_INDEX_DEPTH = 4
"""Indexes inside indexes; digests forbid cycles, so this only bounds the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedImage:
    """One image; the attributes are those of `RemoteImage`."""

    digest: Digest
    manifest: bytes
    config: bytes
    image_config: ImageConfig
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an image has to be.

    Attributes:
        image: The source as the caller spelled it, for errors.
        platform: What it has to run on.
        max_layers: The most layers it may have.
    """

    image: str
    platform: Platform
    max_layers: int


def resolve(entries: Sequence[Descriptor], read: Callable[[Descriptor], bytes], wanted: Wanted) -> ResolvedImage:
    """Resolve the best of `entries`, as an index lists them, to one image.

    Args:
        entries: Descriptors of manifests and indexes.
        read: Returns a document, verified against its descriptor.
        wanted: What is looked for.

    Raises:
        PlatformNotFound: No entry is for the platform.
        InvalidImage: A document is malformed or beyond a limit.
    """
    image, platform, is_named = wanted.image, wanted.platform, False
    for _ in range(1 + MAX_INDEX_DEPTH):
        descriptor = select(entries, platform)
        if descriptor is None:
            raise PlatformNotFound(image=image, platform=str(platform), available=available_platforms(entries))
        is_named |= descriptor.platform is not None
        content = read(descriptor)
        document = parse_manifest_or_index(content, image=image, media_type=descriptor.media_type)
        if isinstance(document, Manifest):
            return complete(content, document, read(document.config), wanted, is_platform_named=is_named)
        entries = document.manifests
    raise InvalidImage(image=image, reason=f"it has more than {MAX_INDEX_DEPTH} indexes inside each other")


def complete(
    content: bytes, manifest: Manifest, config: bytes, wanted: Wanted, *, is_platform_named: bool = False
) -> ResolvedImage:
    """Put a manifest and its configuration together, checked against each other and against what is wanted.

    Args:
        content: The manifest, byte for byte.
        manifest: The same, parsed.
        config: The configuration, byte for byte.
        wanted: What is looked for.
        is_platform_named: Whether an index chose the manifest for its platform. Then the index has the say: build tools
            that make an image for one machine on another leave a wrong platform in the configuration.

    Raises:
        InvalidImage: The configuration is malformed, or both do not speak of the same layers.
        PlatformNotFound: The configuration is for a platform that does not run here.
    """
    image, platform = wanted.image, wanted.platform
    image_config = ImageConfig.parse(config, image=image)
    check_layers(manifest, image_config, image=image, max_layers=wanted.max_layers)
    is_said = not (is_platform_named or image_config.platform.is_unknown)
    if is_said and not platform.accepts(image_config.platform):
        raise PlatformNotFound(image=image, platform=str(platform), available=str(image_config.platform))
    return ResolvedImage(
        digest=Digest.of(content), manifest=content, config=config, image_config=image_config, layers=manifest.layers
    )
