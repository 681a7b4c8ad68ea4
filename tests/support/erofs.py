# SPDX-License-Identifier: Apache-2.0
"""Archives shown as images in EROFS format, and as stacks of layers in directory format to compare them with."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.tar import Entry, tar_bytes
from worker.backends.overlay import OverlayBackend
from worker.image import LayerFormat, LayerRecord, LowerDir
from worker.layers.builder import BuiltLayer
from worker.layers.directory import build_directory
from worker.layers.erofs.build import build_erofs
from worker.layers.limits import LayerLimits
from worker.layers.whiteouts import OverlayWhiteouts
from worker.linux.erofs import mount_erofs
from worker.linux.mount import unmount_tree
from worker.oci.digest import Digest
from worker.paths import RootfsPaths
from worker.store.implied import LayerTree, make_overrides, plan_overrides
from worker.store.merged import MergedImage, merge_image

LIMITS = LayerLimits(max_layer_bytes=1 << 40, max_entries=10_000_000, max_header_bytes=1 << 20)

Archive = bytes | Iterable[Entry]


def build_layers(archives: Sequence[Archive], directory: Path) -> list[Path]:
    """Build layers in EROFS format and return their directories."""
    layer_dirs = []
    for number, archive in enumerate(archives):
        layer_dirs.append(directory / f"sha256:{number:064d}")
        layer_dirs[-1].mkdir(parents=True)
        build_erofs(_chunks(archive), staging_dir=layer_dirs[-1], limits=LIMITS, is_squashed=False)
    return layer_dirs


def make_image(archives: Sequence[Archive], directory: Path) -> MergedImage:
    """Build layers and merge them."""
    return merge_image(directory / "merged.erofs", build_layers(archives, directory), limits=LIMITS)


@contextmanager
def mounted(image: MergedImage, target: Path) -> Iterator[Path]:
    """Show an image at `target`, which is made."""
    target.mkdir(parents=True, exist_ok=True)
    mount_erofs(image.image_path, image.device_paths, target)
    try:
        yield target
    finally:
        unmount_tree(target)


@contextmanager
def shown(archives: Sequence[Archive], directory: Path) -> Iterator[Path]:
    """Build, merge and mount layers in EROFS format; yields the tree."""
    with mounted(make_image(archives, directory / "erofs"), directory / "erofs/mount") as tree:
        yield tree


@contextmanager
def stacked(archives: Sequence[Archive], directory: Path) -> Iterator[Path]:
    """Unpack the same layers, put unlisted directories right as a store does, and stack all with overlayfs."""
    backend, paths = OverlayBackend(), RootfsPaths(directory / "overlay/home")
    trees, lower_dirs = [], []
    for number, archive in enumerate(archives):
        layer_dir = directory / f"overlay/{number}"
        layer_dir.mkdir(parents=True)
        built = unpack(archive, layer_dir)
        if built.is_opaque:
            trees, lower_dirs = [], []
        trees.append(LayerTree.of(layer_dir / "tree", _record(built)))
        lower_dirs.append(LowerDir(path=layer_dir / "tree", has_whiteouts=built.has_whiteouts))
    overrides = plan_overrides(trees)
    if overrides:
        (directory / "overlay/implied").mkdir()
        make_overrides(overrides, directory / "overlay/implied")
        lower_dirs.append(LowerDir(path=directory / "overlay/implied"))
    paths.rootfs_home.mkdir(parents=True)
    with ExitStack() as stack:
        stack.callback(unmount_tree, paths.rootfs_home)
        backend.provision(lower_dirs, paths, is_read_only=True)
        yield paths.rootfs_dir


def unpack(archive: Archive, layer_dir: Path) -> BuiltLayer:
    """Build a layer in directory format."""
    form = OverlayWhiteouts(is_squashed=False)
    return build_directory(_chunks(archive), form=form, staging_dir=layer_dir, limits=LIMITS, is_squashed=False)


def _chunks(archive: Archive) -> Iterator[bytes]:
    tar = archive if isinstance(archive, bytes) else tar_bytes(archive)
    for start in range(0, len(tar), 1 << 20):
        yield tar[start : start + (1 << 20)]


def _record(built: BuiltLayer) -> LayerRecord:
    digest = Digest.of(b"")
    return LayerRecord(
        diff_id=digest,
        layer_format=LayerFormat.DIRECTORY,
        blob_digest=digest,
        blob_bytes=0,
        tar_bytes=0,
        disk_bytes=0,
        entries=0,
        has_whiteouts=built.has_whiteouts,
        is_squashed=False,
        implied_dirs=built.implied_dirs,
    )
