# SPDX-License-Identifier: Apache-2.0
"""What must be so of nodes and stores, during a run and after it."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.integration.chaos.model import Model, read_tree
from tests.support.mounts import mounts_below
from worker.image import LayerFormat
from worker.oci.digest import Digest
from worker.provisioner import Provisioner
from worker.store.images import RefOwner
from worker.store.store import Store

Infos = Mapping[str, Mapping[str, Any]]


def broken(info: Mapping[str, Any], store: Store, model: Model) -> Iterator[str]:
    """Say what is wrong with a rootfs that was answered: files, layers, ref."""
    name = f"{info['container_id']} on {info['node']}"
    image = info["image"]
    if info["digest"] != model.images[image].digest:
        yield f"{name} has digest {info['digest']}"
    if (found := read_tree(Path(info["rootfs"]))) != model.trees[image]:
        different = sorted(
            path for path in {*found, *model.trees[image]} if found.get(path) != model.trees[image].get(path)
        )
        yield f"{name} of {image} differs in {len(different)} files: {different[:5]}"
    layers = [Digest.parse(layer) for layer in info["layers"]]
    if missing := store.layers.missing(layers, layer_format=LayerFormat(info["layer_format"])):
        yield f"{name} lacks layers {[str(each)[:20] for each in missing]}"
    if not _ref_path(info, store).exists():
        yield f"{name} has no ref"


def _ref_path(info: Mapping[str, Any], store: Store) -> Path:
    owner = RefOwner(node=info["node"], container_id=info["container_id"], name=info["name"])
    return store.images.ref_path(Digest.parse(info["digest"]), owner)


def left_of(container_id: str, node: Provisioner) -> Iterator[str]:
    """Say what is left of a container whose destroy was answered."""
    directory = node.node.work.container_dir(tuple(container_id.split(".")))
    if directory.exists():
        yield f"{container_id} on {node.node.name} was destroyed and still has {directory}"
    store = node.node.store
    owner = RefOwner(node=node.node.name, container_id=container_id, name="rootfs")
    for digest in store.images.digests():
        if store.images.ref_path(digest, owner).exists():
            yield f"{container_id} on {node.node.name} was destroyed and still has a ref to {digest}"


def surplus(store: Store, alive: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Say what a store holds that nobody alive needs, and what it lacks, nobody being at work."""
    infos = list(alive)
    yield from _difference("images", map(str, store.images.digests()), {info["digest"] for info in infos})
    # In whatever formats: where nodes of two formats share a store, an image keeps its layers in both.
    committed = (str(digest) for _, digest in store.layers.committed())
    yield from _difference("layers", committed, {layer for info in infos for layer in info["layers"]})
    refs = (str(path) for digest in store.images.digests() for path, _ in store.images.refs(digest))
    yield from _difference("refs", refs, {str(_ref_path(info, store)) for info in infos})
    yield from _difference("trash", map(str, store.paths.trash_dir.iterdir()), ())
    yield from _difference("staging", map(str, store.paths.staging_dir.iterdir()), ())
    references = {str(reference.digest) for _, reference in store.images.references()}
    yield from _difference("references", references, references & {info["digest"] for info in infos})
    yield from _difference("probes", map(str, store.paths.store_dir.glob(".probe*")), ())


def surplus_on(node: Provisioner, alive: Infos) -> Iterator[str]:
    """Say what a node has mounted, recorded or lying about beside what is alive."""
    work = node.node.work
    rootfses = {info["rootfs"] for info in alive.values()}
    mounted = (point for point in mounts_below(work.work_dir) if not point.startswith(f"{work.work_dir}/images/"))
    yield from _difference("mounts", mounted, rootfses)
    images = [point for point in mounts_below(work.work_dir) if point.startswith(f"{work.work_dir}/images/")]
    used = {info["digest"] for info in alive.values() if info["layer_format"] == LayerFormat.EROFS}
    yield from _difference("mounted images", (point.split("/")[-2] for point in images), used)
    records = (str(path.parent) for path in work.containers_dir.rglob("record.json") if "rootfses" not in path.parts)
    yield from _difference("records", records, {str(Path(info["rootfs"]).parents[2]) for info in alive.values()})
    yield from _difference("trash", map(str, work.trash_dir.iterdir()), ())


def _difference(what: str, found: Iterable[str], expected: Iterable[str]) -> Iterator[str]:
    is_there, is_due = set(found), set(expected)
    too_many, too_few = is_there - is_due, is_due - is_there
    if too_many:
        yield f"{what}: {sorted(too_many)[:5]} too many"
    if too_few:
        yield f"{what}: {sorted(too_few)[:5]} too few"
