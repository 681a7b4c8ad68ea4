# SPDX-License-Identifier: Apache-2.0
"""The form of an archive that Docker wrote before 1.10: `repositories`, and layers that name their parents.

::

    repositories      {"busybox": {"latest": "<id>"}}: an image is the id of its top layer
    <id>/json         the layer's "v1 image manifest": its `parent`, and at the top what a container runs
    <id>/layer.tar    the layer
    <id>/VERSION      1.0

There is no manifest, no configuration and no digest in it. They are made up, always the same for the same image: the
configuration is the top layer's document, every member of it, with the `rootfs` and `history` that later ones have.

Source: moby, image/spec/v1.md, "Combined Image JSON + Filesystem Changeset Format".
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from worker.errors import ImageNotFound, InvalidImage
from worker.layers.inflate import inflate
from worker.layers.refusal import Refusal
from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest
from worker.oci.document import decode_object
from worker.oci.manifest import Manifest
from worker.oci.reference import ImageSource
from worker.puller import RemoteImage
from worker.pullers.choice import choose
from worker.pullers.content import Content, LocalImage, reading
from worker.pullers.made_manifest import canonical_json, make_manifest
from worker.pullers.resolve import Wanted, complete
from worker.pullers.saved import Paths, describe_layer

REPOSITORIES_FILE: Final = "repositories"


@dataclass(frozen=True, slots=True)
class _Named:
    """A line of `repositories`: a name, and the id of the image's top layer."""

    name: str
    layer_id: str


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer's id, and its document, decoded."""

    layer_id: str
    document: Mapping[str, Any]

    @property
    def path(self) -> str:
        return f"{self.layer_id}/layer.tar"


def open_legacy(content: Content, source: ImageSource, wanted: Wanted, *, max_window_bytes: int) -> RemoteImage:
    """Resolve the image that `source` selects, by its name or number, in the archive that `content` holds.

    Cost: reads every layer once, since the archive does not name their digests.

    Raises:
        ImageNotFound: The archive has no such image, or several and none is selected.
        InvalidImage: It is malformed, or a layer is its own ancestor.
    """
    images = _read_repositories(content)
    chosen = choose(images, source, names=lambda each: (each.name,), identity=lambda each: each.layer_id)
    if len({each.layer_id for each in chosen}) > 1:
        raise ImageNotFound(image=str(source), reason="there are several of this name; choose by :@<number>")
    chain = _chain(content, chosen[0].layer_id, max_layers=wanted.max_layers)
    layers, diff_ids, paths = _describe(content, chain, max_window_bytes=max_window_bytes)
    config = _make_config(chain, diff_ids)
    manifest = make_manifest(config, layers)
    resolved = complete(manifest, Manifest.parse(manifest, image=wanted.image), config, wanted)
    return LocalImage(content, resolved, paths)


def _read_repositories(content: Content) -> list[_Named]:
    document = decode_object(content.read_document(REPOSITORIES_FILE), image=content.image, subject=REPOSITORIES_FILE)
    images = []
    for repository, tags in document.items():
        if not isinstance(tags, dict) or not all(isinstance(layer_id, str) for layer_id in tags.values()):
            raise InvalidImage(image=content.image, reason=f"its {REPOSITORIES_FILE} does not name tags and layers")
        images += [_Named(f"{repository}:{tag}", layer_id) for tag, layer_id in tags.items()]
    return images


def _chain(content: Content, layer_id: str, *, max_layers: int) -> list[_Layer]:
    """Follow the parents from the top layer; return the layers base first."""
    chain: dict[str, _Layer] = {}
    while layer_id:
        if layer_id in chain:
            raise InvalidImage(image=content.image, reason=f"its layer {layer_id:.80} is its own ancestor")
        if len(chain) == max_layers:
            raise InvalidImage(image=content.image, reason=f"it has more than the {max_layers} layers allowed")
        text = content.read_document(f"{layer_id}/json")
        document = decode_object(text, image=content.image, subject="layer's json")
        chain[layer_id] = _Layer(layer_id, document)
        layer_id = document.get("parent") or ""
        if not isinstance(layer_id, str):
            raise InvalidImage(image=content.image, reason="a layer's parent is no string")
    if not chain:
        raise InvalidImage(image=content.image, reason="it has no layers")
    return [*chain.values()][::-1]


def _describe(
    content: Content, chain: Sequence[_Layer], *, max_window_bytes: int
) -> tuple[list[Descriptor], list[Digest], Paths]:
    """Return the layers' descriptors and DiffIDs, base first, and where their blobs are."""
    layers: list[Descriptor] = []
    diff_ids: list[Digest] = []
    paths: Paths = {}
    for layer in chain:
        with content.open(layer.path) as extent, _inflating(content.image, layer.path):
            diff_ids.append(_diff_id(inflate(extent.chunks(), max_window_bytes=max_window_bytes)))
            layers.append(describe_layer(extent, diff_ids[-1]))
        paths[layers[-1].digest] = layer.path
    return layers, diff_ids, paths


@contextmanager
def _inflating(image: str, path: str) -> Iterator[None]:
    try:
        with reading(image):
            yield
    except Refusal as refusal:
        raise InvalidImage(image=image, reason=f"its {path} is refused: {refusal}") from refusal


def _diff_id(chunks: Iterator[bytes]) -> Digest:
    hasher = hashlib.sha256()
    for chunk in chunks:
        hasher.update(chunk)
    return Digest("sha256", hasher.hexdigest())


def _make_config(chain: Sequence[_Layer], diff_ids: Sequence[Digest]) -> bytes:
    """Return the configuration that the archive lacks: canonical JSON, so that one image always has one digest."""
    rootfs = {"type": "layers", "diff_ids": [str(diff_id) for diff_id in diff_ids]}
    history = [_history(layer.document) for layer in chain]
    document = {**chain[-1].document, "rootfs": rootfs, "history": history}
    return canonical_json(document)


def _history(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configuration tells of a layer, as Docker makes it of such a document."""
    container = document.get("container_config")
    command = container.get("Cmd") if isinstance(container, dict) else None
    words = [word for word in command if isinstance(word, str)] if isinstance(command, list) else []
    entry = {name: document[name] for name in ("created", "author", "comment") if document.get(name)}
    return {**entry, "created_by": " ".join(words)} if words else entry
