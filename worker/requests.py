# SPDX-License-Identifier: Apache-2.0
"""What the tasks are asked for: keywords in, checked values out.

The fields and their defaults *are* the wire contract; a test lists them literally. Parsing happens once, at the edge,
and names the first thing wrong with the request as an `InvalidArgument`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, ValidationError, ValidationInfo

from worker.container_id import ContainerId
from worker.errors import InvalidArgument, ProvisionerError
from worker.oci.digest import Digest
from worker.oci.platform import Platform
from worker.oci.reference import DOCKER_HUB, ImageSource

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_DIGEST_PREFIXES = ("sha256:", "sha512:")


def _name(text: object) -> object:
    if isinstance(text, str) and not _NAME.fullmatch(text):
        raise ValueError(f"it must match {_NAME.pattern}")
    return text


def _image(text: object, info: ValidationInfo) -> ImageSource:
    if not isinstance(text, str):
        raise ValueError("it must be a string")  # noqa: TRY004 - what pydantic expects of a validator
    return ImageSource.parse(text, default_registry=info.context or DOCKER_HUB)


def _platform(text: object) -> Platform | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError("it must be a string or null")  # noqa: TRY004 - what pydantic expects of a validator
    return Platform.parse(text)


def _stored_image(text: object, info: ValidationInfo) -> Digest | ImageSource:
    return Digest.parse(text) if isinstance(text, str) and text.startswith(_DIGEST_PREFIXES) else _image(text, info)


Name = Annotated[str, BeforeValidator(_name)]
Image = Annotated[InstanceOf[ImageSource], BeforeValidator(_image)]
StoredImage = Annotated[InstanceOf[Digest] | InstanceOf[ImageSource], BeforeValidator(_stored_image)]
Container = Annotated[InstanceOf[ContainerId], BeforeValidator(ContainerId.parse)]
MaybePlatform = Annotated[InstanceOf[Platform] | None, BeforeValidator(_platform)]


class _Request(BaseModel):
    """Keywords of one task: unknown ones refused, no coercion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def parse(cls, keywords: Mapping[str, Any], *, default_registry: str = DOCKER_HUB) -> Self:
        """Check the keywords of a task.

        Args:
            keywords: As they were published.
            default_registry: Of images named without one.

        Raises:
            InvalidArgument: Names the first keyword that is unknown, missing or malformed, and why.
        """
        try:
            return cls.model_validate(dict(keywords), context=default_registry)
        except ValidationError as error:
            raise _first_error(error) from None


class ProvisionRequest(_Request):
    """`provisioner.provision`."""

    container_id: Container
    image: Image
    name: Name = "rootfs"
    node: Name | None = None
    backend: str | None = None
    platform: MaybePlatform = None
    cached: bool = True
    read_only: bool = False
    secret: Name | None = None
    bundle: bool = False

    def to_json(self) -> str:
        """Return the keywords it was parsed from, defaults included: enough to ask again."""
        texts = {"container_id": str(self.container_id), "image": self.image.normalised}
        platform = None if self.platform is None else str(self.platform)
        return json.dumps(self.model_dump(exclude={*texts, "platform"}) | texts | {"platform": platform})


class DestroyRequest(_Request):
    """`provisioner.destroy`."""

    container_id: Container


class PullRequest(_Request):
    """`provisioner.pull`."""

    image: Image
    node: Name | None = None
    platform: MaybePlatform = None
    cached: bool = True
    secret: Name | None = None


class PruneRequest(_Request):
    """`provisioner.prune`; `excluded_images` are references or digests."""

    excluded_images: Sequence[StoredImage] = Field(default=())
    node: Name | None = None
    dry_run: bool = False
    unused_seconds: float = Field(default=0.0, ge=0)
    free_bytes: int | None = Field(default=None, ge=0)
    free_percent: float | None = Field(default=None, ge=0, le=100)

    @property
    def excluded_digests(self) -> frozenset[Digest]:
        """The excluded images given by digest, with a name before it or without."""
        return frozenset(digest for image in self.excluded_images if (digest := _digest_of(image)) is not None)

    @property
    def excluded_references(self) -> frozenset[str]:
        """The excluded images given by reference, normalised."""
        return frozenset(image.normalised for image in self.excluded_images if isinstance(image, ImageSource))


class RecoverRequest(_Request):
    """`provisioner.recover`; without `known_container_ids` no container is destroyed."""

    known_container_ids: Sequence[Container] | None = None
    node: Name | None = None


class VerifyRequest(_Request):
    """`provisioner.verify`; `image` is a reference or a digest, and None all that the store has."""

    image: StoredImage | None = None
    node: Name | None = None
    repair: bool = False

    @property
    def digest(self) -> Digest | None:
        """The image, if it is given by digest alone."""
        return self.image if isinstance(self.image, Digest) else None

    @property
    def reference(self) -> str | None:
        """The image, if it is given by reference, normalised."""
        return self.image.normalised if isinstance(self.image, ImageSource) else None


def _digest_of(image: Digest | ImageSource) -> Digest | None:
    if isinstance(image, Digest):
        return image
    return None if image.reference is None else image.reference.digest


def _first_error(error: ValidationError) -> ProvisionerError:
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidArgument):
        return cause
    argument = ".".join(str(part) for part in first["loc"])
    value = "" if first["type"] == "missing" else repr(first["input"])[:160]
    reason = {"extra_forbidden": "there is no such argument", "missing": "it is required"}.get(
        first["type"], first["msg"]
    )
    return InvalidArgument(argument=argument, value=value, reason=reason)
