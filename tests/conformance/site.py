# SPDX-License-Identifier: Apache-2.0
"""Where a backend is tried: a store, a work directory, and layers to show."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.mounts import mounts_below
from tests.support.trees import Directory, File, HardLink, Special, Symlink, Tree, has_whiteouts, make_tree
from worker.backend import Backend
from worker.backends import BACKENDS, unsupported_reasons
from worker.image import LowerDir
from worker.linux.mount import unmount_tree
from worker.paths import RootfsPaths

CAPABILITY = b"\x01\x00\x00\x02\x00\x20" + bytes(14)
"""security.capability, revision 2: cap_net_raw, permitted and effective."""
ACCESS_LIST = b"\x02\x00\x00\x00" + b"".join(
    tag.to_bytes(2, "little") + permissions.to_bytes(2, "little") + owner.to_bytes(4, "little")
    for tag, permissions, owner in [
        (0x01, 6, 0xFFFFFFFF),
        (0x02, 4, 1000),
        (0x04, 4, 0xFFFFFFFF),
        (0x10, 4, 0xFFFFFFFF),
        (0x20, 4, 0xFFFFFFFF),
    ]
)
"""system.posix_acl_access: rw for the owner, r for user 1000, the group and others."""
EVERYTHING: Tree = {
    ".": Directory(mode=0o711, uid=7, gid=8),
    "bin/su": File(b"binary", mode=0o4755),
    "bin/write": File(b"binary", mode=0o2755, gid=5),
    "bin/ping": File(b"binary", mode=0o755, xattrs={"security.capability": CAPABILITY}),
    "tmp": Directory(mode=0o1777),
    "home/user": Directory(mode=0o700, uid=1000, gid=100, mtime_ns=1),
    "home/user/secret": File(b"\0" * 70_000 + b"end", mode=0o000, uid=1000, gid=100),
    "home/user/huge-owner": File(uid=2**31 + 5, gid=2**31 + 6),
    "home/user/noted": File(xattrs={"user.note": b"\0binary\xff", "trusted.note": b"root's"}),
    "home/user/listed": File(mode=0o644, xattrs={"system.posix_acl_access": ACCESS_LIST}),
    "link": Symlink("home/user", uid=3, gid=4),
    "dangling": Symlink("../../../nowhere"),
    "name": File(b"one inode"),
    "a-second-name": HardLink("name"),
    "home/third-name": HardLink("name"),
    "pipe": Special(kind=stat.S_IFIFO, mode=0o622),
    "null": Special(kind=stat.S_IFCHR, mode=0o666, device=os.makedev(1, 3)),
    "disk": Special(kind=stat.S_IFBLK, mode=0o660, device=os.makedev(7, 0)),
    "before-1970": File(mtime_ns=-1_500_000_000),
    "odd \\name\n\t#:,=": File(b"odd"),
    "d/e/e/p/e/r/file": File(b"deep"),
}


def _reasons() -> dict[str, str | None]:
    with TemporaryDirectory() as directory:
        return unsupported_reasons(work_dir=Path(directory), store_dir=Path(directory))


REASONS = _reasons()
"""Why each backend does not work on this machine, or None."""
WORKING = [kind for kind in BACKENDS if REASONS[kind.name] is None]
STACKING = [kind for kind in WORKING if kind.max_lower_dirs is None or kind.max_lower_dirs > 1]
WRITABLE = [kind for kind in WORKING if kind.is_writable]


class Site:
    """A store and a work directory with one backend."""

    def __init__(self, directory: Path, backend: Backend) -> None:
        self.backend = backend
        self.store_dir = directory / "store"
        self.work_dir = directory / "work"
        self.store_dir.mkdir(parents=True)
        self.work_dir.mkdir()
        self._layers = 0

    def layer(self, tree: Tree, *, name: str | None = None) -> LowerDir:
        """Commit a layer."""
        self._layers += 1
        path = self.store_dir / (name or f"sha256:{self._layers:064d}") / "tree"
        make_tree(path, tree, layer_format=self.backend.layer_formats[0])
        return LowerDir(path=path, has_whiteouts=has_whiteouts(tree))

    def layers(self, trees: Sequence[Tree]) -> list[LowerDir]:
        """Commit several layers, base first."""
        return [self.layer(tree) for tree in trees]

    def home(self, name: str = "home") -> RootfsPaths:
        """Make the home of a rootfs."""
        paths = RootfsPaths(self.work_dir / name)
        paths.rootfs_home.mkdir(parents=True, exist_ok=True)
        return paths

    def show(self, trees: Sequence[Tree]) -> Path:
        """Commit layers and provision a read-only rootfs of them."""
        paths = self.home()
        self.backend.provision(self.layers(trees), paths, is_read_only=not self.backend.is_writable)
        return paths.rootfs_dir

    def is_clean(self, paths: RootfsPaths) -> bool:
        """Tell whether no rootfs and no mount is left."""
        return not paths.rootfs_dir.exists() and not mounts_below(paths.rootfs_home)

    def close(self) -> None:
        """Take everything down, whatever the test left."""
        unmount_tree(self.work_dir)


def names(directory: Path) -> list[str]:
    """List a directory, sorted."""
    return sorted(path.name for path in directory.iterdir())
