# SPDX-License-Identifier: Apache-2.0
"""The same site with its layers in EROFS format: a stack of any depth is one lower directory, a mount."""

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from typing_extensions import override

from tests.conformance.site import WORKING, Site
from tests.support.erofs import make_image
from tests.support.tar import Entry as Member
from tests.support.tar import Opaque
from tests.support.tar import Whiteout as WhiteoutMember
from tests.support.trees import Directory, Entry, File, HardLink, Special, Symlink, Tree, Whiteout
from worker.backend import Backend
from worker.image import LayerFormat, LowerDir
from worker.layers.erofs.probe import erofs_unsupported_reason
from worker.linux.erofs import mount_erofs
from worker.linux.mount import unmount_tree

_TYPEFLAGS = {stat.S_IFIFO: b"6", stat.S_IFCHR: b"3", stat.S_IFBLK: b"4"}


class ErofsSite(Site):
    """A store of EROFS layers; images are mounted beside it."""

    def __init__(self, directory: Path, backend: Backend) -> None:
        super().__init__(directory, backend)
        self._mounts_dir = directory / "mounts"
        self._images = 0

    @override
    def layer(self, tree: Tree, *, name: str | None = None) -> LowerDir:
        return self._show([tree], name=name)

    @override
    def layers(self, trees: Sequence[Tree]) -> list[LowerDir]:
        return [self._show(trees, name=None)]

    @override
    def close(self) -> None:
        super().close()
        if self._mounts_dir.exists():
            unmount_tree(self._mounts_dir)

    def _show(self, trees: Sequence[Tree], *, name: str | None) -> LowerDir:
        self._images += 1
        place = name or str(self._images)
        image = make_image([_members(tree) for tree in trees], self.store_dir / place / "image")
        target = self._mounts_dir / place / "mount"
        target.mkdir(parents=True)
        mount_erofs(image.image_path, image.device_paths, target)
        return LowerDir(path=target)


def working_with_erofs(directory: Path) -> list[type[Backend]]:
    """Return the backends that show EROFS images here: those that take plain directories."""
    if erofs_unsupported_reason(directory) is not None:
        return []
    return [kind for kind in WORKING if LayerFormat.DIRECTORY in kind.layer_formats]


def _members(tree: Tree) -> list[Member]:
    """Write a tree as the members of a layer's tar, with all directories listed."""
    parents = {str(parent) for path in tree for parent in PurePosixPath(path).parents}
    entries: Mapping[str, Entry | HardLink | Whiteout] = {path: Directory() for path in parents | {"."}} | dict(tree)
    ordered = sorted(entries.items(), key=lambda item: (isinstance(item[1], HardLink), item[0]))
    return [member for path, entry in ordered for member in _of(path, entry)]


def _of(path: str, entry: Entry | HardLink | Whiteout) -> list[Member]:
    if isinstance(entry, Whiteout):
        return [WhiteoutMember(path)]
    if isinstance(entry, HardLink):
        return [Member(path, typeflag=b"1", linkname=entry.to)]
    more = {"uid": entry.uid, "gid": entry.gid, "mtime_ns": entry.mtime_ns, "xattrs": entry.xattrs}
    match entry:
        case File():
            return [Member(path, mode=entry.mode, content=entry.content, **more)]  # type: ignore[arg-type]
        case Directory():
            directory = Member(f"{path}/", mode=entry.mode, typeflag=b"5", **more)  # type: ignore[arg-type]
            return [directory, *([Opaque(path if path != "." else "")] if entry.is_opaque else [])]
        case Symlink():
            return [Member(path, mode=0o777, typeflag=b"2", linkname=entry.target, **more)]  # type: ignore[arg-type]
        case Special():
            device = os.major(entry.device), os.minor(entry.device)
            return [Member(path, mode=entry.mode, typeflag=_TYPEFLAGS[entry.kind], device=device, **more)]  # type: ignore[arg-type]
    raise TypeError(entry)
