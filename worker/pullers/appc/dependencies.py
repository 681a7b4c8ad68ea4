# SPDX-License-Identifier: Apache-2.0
"""Which archives an image is made of, and in what order.

Depth first: what an image depends on lies below it, dependencies in their order. One that several need stands once,
below all of them. Source: appc spec 0.8.11, aci.md, "Image Manifest Schema" and "Dependency Matching".
"""

from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from worker.errors import InvalidImage
from worker.oci.appc import AppcReference
from worker.oci.appc_manifest import AppcDependency
from worker.oci.digest import Digest

MAX_DEPTH: Final = 32
"""Images below each other."""

MAX_IMAGES: Final = 128
"""Archives of one image; each is an open file while the image is pulled."""


class Archive(Protocol):
    """What decides the order."""

    @property
    def image_id(self) -> Digest:
        """Its own."""

    @property
    def dependencies(self) -> tuple[AppcDependency, ...]:
        """Those that its manifest names."""


A = TypeVar("A", bound=Archive)


def resolve_order(wanted: AppcDependency, load: Callable[[AppcDependency], A], *, image: str) -> list[A]:
    """Return the archives of an image, base first, the wanted one itself last; each once.

    Args:
        wanted: The image.
        load: Fetches an archive; called once for each way in which it is named.
        image: Named in errors.

    Raises:
        InvalidImage: The dependencies go round in a circle, which is named, or are too many or too deep.
    """
    resolver = _Resolver(load, image)
    resolver.visit(wanted, trail=())
    return resolver.order


class _Resolver(Generic[A]):
    def __init__(self, load: Callable[[AppcDependency], A], image: str) -> None:
        self.order: list[A] = []
        self._load = load
        self._image = image
        self._loaded: dict[AppcDependency, A] = {}
        self._placed: set[Digest] = set()

    def visit(self, wanted: AppcDependency, *, trail: tuple[tuple[Digest, AppcReference], ...]) -> None:
        """Place an image behind all it depends on.

        Args:
            wanted: The image.
            trail: The images that led here, by id.
        """
        names = [str(reference) for _, reference in trail] + [str(wanted.reference)]
        if len(names) > MAX_DEPTH:
            self._refuse(f"its dependencies are more than {MAX_DEPTH} deep: {_shown(names)}")
        archive = self._get(wanted)
        if archive.image_id in {image_id for image_id, _ in trail}:
            self._refuse(f"its dependencies go round in a circle: {_shown(names)}")
        if archive.image_id in self._placed:
            return
        for dependency in archive.dependencies:
            self.visit(dependency, trail=(*trail, (archive.image_id, wanted.reference)))
        self._placed.add(archive.image_id)
        self.order.append(archive)

    def _get(self, wanted: AppcDependency) -> A:
        if wanted not in self._loaded:
            if len(self._loaded) == MAX_IMAGES:
                self._refuse(f"it is made of more than {MAX_IMAGES} images")
            self._loaded[wanted] = self._load(wanted)
        return self._loaded[wanted]

    def _refuse(self, reason: str) -> None:
        raise InvalidImage(image=self._image, reason=reason)


def _shown(names: list[str]) -> str:
    ends = names if len(names) <= 8 else [*names[:4], "…", *names[-3:]]  # noqa: PLR2004 - what fits a line
    return " -> ".join(ends)
