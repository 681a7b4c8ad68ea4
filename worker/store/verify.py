# SPDX-License-Identifier: Apache-2.0
"""What in a store is not what it must be, found without a lock: nothing here changes anything.

What is found in full and what is not: an EROFS layer is compared byte for byte with what its DiffID promises, and
whatever is computed of it is computed again. Of a layer in directory format no preimage is left on disk: its record,
its tree's presence and that all of it can be read are checked; a file changed in place is not noticed.

Whatever disappears meanwhile, since prune and destroys go on, is no mismatch.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from worker.errors import (
    InvalidArgument,
    LayerDamaged,
    LayerLimitExceeded,
    LayerVanished,
    ProvisionerError,
    RecordCorrupt,
)
from worker.image import LayerFormat
from worker.layers.directory import TREE
from worker.layers.erofs.check import check_erofs
from worker.layers.limits import LayerLimits
from worker.linux import durable
from worker.oci.config import ImageConfig, check_layers
from worker.oci.digest import Digest
from worker.oci.manifest import Manifest
from worker.problem import Problem, ProblemKind
from worker.settings import MIB
from worker.store.images import StoredImage
from worker.store.merged import merged_content
from worker.store.resolved import read_reference
from worker.store.staging import staging
from worker.store.store import Store

Layer = tuple[LayerFormat, Digest]

_CHUNK_BYTES = MIB


def layer_subject(layer: Layer) -> str:
    """Name a layer as problems do."""
    return f"{layer[0]}/{layer[1]}"


def check_layer(
    store: Store, layer: Layer, *, limits: LayerLimits, on_progress: Callable[[int], None]
) -> Iterator[Problem]:
    """Yield everything that is wrong with a layer.

    Cost: reads and hashes all of it.
    """
    problems = list(_check_layer(store, layer, limits=limits, on_progress=on_progress))
    if store.layers.directory(layer[1], layer_format=layer[0]).exists():
        yield from problems


def _check_layer(
    store: Store, layer: Layer, *, limits: LayerLimits, on_progress: Callable[[int], None]
) -> Iterator[Problem]:
    layer_format, diff_id = layer
    layer_dir, subject = store.layers.directory(diff_id, layer_format=layer_format), layer_subject(layer)
    try:
        record = store.layers.record(diff_id, layer_format=layer_format)
        if (record.diff_id, record.layer_format) != (diff_id, layer_format):
            detail = f"its record is of {record.layer_format}/{record.diff_id}"
            yield Problem(kind=ProblemKind.LAYER_RECORD_CORRUPT, subject=subject, detail=detail)
        elif layer_format is not LayerFormat.EROFS:
            _read_tree(layer_dir / TREE, on_progress)
        else:
            with staging(store.paths.staging_dir / f"verify-{diff_id.hex[:64]}") as scratch:
                faults = check_erofs(layer_dir, record, scratch_dir=scratch, limits=limits, on_progress=on_progress)
                yield from (Problem(kind=kind, subject=subject, detail=detail) for kind, detail in faults)
    except (RecordCorrupt, LayerVanished) as error:
        yield Problem(kind=ProblemKind.LAYER_RECORD_CORRUPT, subject=subject, detail=str(error))
    except FileNotFoundError as error:
        yield Problem(kind=ProblemKind.LAYER_DATA_MISSING, subject=subject, detail=f"{error.filename} is missing")
    except OSError as error:
        yield Problem(kind=ProblemKind.LAYER_UNREADABLE, subject=subject, detail=str(error))


def _read_tree(tree_dir: Path, on_progress: Callable[[int], None]) -> None:
    """Read every file of a tree to its end. Raises OSError for what cannot be read."""
    tree_dir.lstat()
    for directory, _, names, descriptor in os.fwalk(tree_dir, onerror=_raise):
        for name in names:
            with suppress(FileNotFoundError):
                _read_file(Path(directory) / name, name, descriptor, on_progress)


def _read_file(path: Path, name: str, directory: int, on_progress: Callable[[int], None]) -> None:
    if not path.is_symlink() and path.is_file():
        with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory), "rb", 0) as file:  # noqa: PTH123 - a descriptor
            while chunk := file.read(_CHUNK_BYTES):
                on_progress(len(chunk))


def _raise(error: OSError) -> None:
    raise error


def check_image(store: Store, digest: Digest, *, max_layers: int, limits: LayerLimits) -> Iterator[Problem]:
    """Yield what is wrong with an image's manifest and configuration, or else with what was computed of its layers."""
    text = str(digest)
    try:
        manifest_bytes = store.paths.manifest_path(text).read_bytes()
        config_bytes = store.paths.config_path(text).read_bytes()
        manifest = Manifest.parse(manifest_bytes, image=text)
        _expect(manifest_bytes, digest, "manifest")
        _expect(config_bytes, manifest.config.digest, "configuration")
        config = ImageConfig.parse(config_bytes, image=text)
        check_layers(manifest, config, image=text, max_layers=max_layers)
    except (OSError, ProvisionerError) as error:
        if store.paths.image_dir(text).exists():
            yield Problem(kind=ProblemKind.IMAGE_CORRUPT, subject=text, detail=str(error))
        return
    yield from _check_merged(store, StoredImage(digest=digest, manifest=manifest, config=config), limits=limits)


def _expect(content: bytes, digest: Digest, subject: str) -> None:
    actual = Digest.of(content, algorithm=digest.algorithm)
    if actual != digest:
        raise RecordCorrupt(path=subject, reason=f"it has digest {actual}, expected {digest}")


def _check_merged(store: Store, image: StoredImage, *, limits: LayerLimits) -> Iterator[Problem]:
    """Merge the layers again and compare. Cost: as for merging, about 5 µs an entry."""
    path = store.paths.merged_path(str(image.digest))
    try:
        path.stat()
        stack = store.layers.stack(image.layers, layer_format=LayerFormat.EROFS)
        content = merged_content([layer_dir for layer_dir, _ in stack], limits=limits)
        detail = "" if _holds(path, content) else f"{path.name} is not what the layers give"
    except LayerLimitExceeded as error:
        detail = str(error)
    except (FileNotFoundError, LayerVanished, LayerDamaged):
        return
    if detail and path.exists():
        yield Problem(kind=ProblemKind.IMAGE_MERGED_WRONG, subject=str(image.digest), detail=detail)


def _holds(path: Path, content: bytearray) -> bool:
    """Tell whether a file is of exactly these bytes, of which it needs no second copy."""
    with path.open("rb") as file, memoryview(content) as view:
        starts = range(0, len(view), _CHUNK_BYTES)
        return all(view[start : start + _CHUNK_BYTES] == file.read(_CHUNK_BYTES) for start in starts) and not file.read(
            1
        )


def check_refs(store: Store, digest: Digest) -> Iterator[Problem]:
    """Yield an image's refs that name nobody."""
    for path, owner in store.images.refs(digest):
        if owner is None and path.exists():
            detail = f"{path.name} names nobody"
            yield Problem(kind=ProblemKind.REF_CORRUPT, subject=str(digest), detail=detail)


def check_references(store: Store, *, only: Collection[Digest] | None = None) -> Iterator[tuple[Problem, Path]]:
    """Yield references that say nothing or lead nowhere, with their files; all, or those to some images."""
    for path in sorted(store.paths.references_dir.iterdir()):
        if durable.is_temporary(path.name):
            continue
        try:
            found = read_reference(path)
        except FileNotFoundError:
            continue
        except RecordCorrupt as error:
            if only is None:
                yield Problem(kind=ProblemKind.REFERENCE_CORRUPT, subject=path.name, detail=str(error)), path
            continue
        is_asked_for = only is None or found.digest in only
        if is_asked_for and not store.paths.image_dir(str(found.digest)).exists() and path.exists():
            detail = f"it leads to {found.digest}, which is not there"
            yield Problem(kind=ProblemKind.REFERENCE_DANGLING, subject=found.reference, detail=detail), path


def check_strays(store: Store) -> Iterator[Problem]:
    """Yield what lies among images and layers without being one."""
    directories = [store.paths.images_dir, *(store.paths.layers_dir / each.value for each in LayerFormat)]
    for directory in directories:
        for path in _listed(directory):
            try:
                Digest.parse(path.name)
            except InvalidArgument:
                yield Problem(kind=ProblemKind.STRAY, subject=str(path), detail="it bears no digest's name")


def _listed(directory: Path) -> Iterable[Path]:
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return ()
