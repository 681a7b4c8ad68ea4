# SPDX-License-Identifier: Apache-2.0
"""File trees as values: written to disk, read back, and stacked in a model.

A tree is a mapping of relative paths to entries, `.` for its root. `make_tree` writes one as a layer, `stack` computes
what a stack of layers must look like, and `tree_snapshot` reads what is there::

    base = {"etc/motd": File(b"hello"), "etc/old": File()}
    top = {"etc/old": Whiteout()}
    assert tree_snapshot(rootfs) == stack([base, top])
"""

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from worker.image import LayerFormat

MTIME_NS = 1_234_567_890_123_456_789
"""What entries get unless they say otherwise; its nanoseconds get lost in a float."""

_IGNORED_XATTRS = frozenset({"security.selinux"})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What all entries have."""

    uid: int = 0
    gid: int = 0
    mtime_ns: int = MTIME_NS
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class File(Entry):
    """A regular file."""

    content: bytes = b""
    mode: int = field(default=0o644, kw_only=True)


@dataclass(frozen=True, kw_only=True)
class Directory(Entry):
    """A directory; an opaque one hides what is below it."""

    mode: int = 0o755
    is_opaque: bool = False


@dataclass(frozen=True)
class Symlink(Entry):
    """A symbolic link."""

    target: str


@dataclass(frozen=True, kw_only=True)
class Special(Entry):
    """A fifo, a socket or a device, by its `stat.S_IF…` type."""

    kind: int
    mode: int = 0o600
    device: int = 0


@dataclass(frozen=True)
class HardLink:
    """Another name of an entry of the same layer."""

    to: str


@dataclass(frozen=True)
class Whiteout:
    """Hides the entry of this name in the layers below."""


Tree = Mapping[str, Entry | HardLink | Whiteout]


@dataclass(frozen=True, kw_only=True)
class Node:
    """One path of a tree as it can be seen from outside.

    Attributes:
        kind: `S_IFREG` and the like.
        mode: Permissions; 0o777 for symbolic links.
        content: SHA-256 of a file, target of a symbolic link, device number; else empty.
        same_as: The first of the paths that are this same inode.
    """

    kind: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    content: str
    xattrs: tuple[tuple[str, bytes], ...]
    same_as: str


def tree_snapshot(root: Path) -> dict[str, Node]:
    """Read everything at and below `root`, following no link; paths are relative, the root is `.`.

    Two trees are alike if and only if their snapshots are equal. `dataclasses.replace` evens out what a comparison is
    not about.
    """
    first_paths: dict[tuple[int, int], str] = {}
    nodes = {}
    for path in sorted(_walk(root)):
        full = root / path
        status = full.lstat()
        key = path if stat.S_ISDIR(status.st_mode) else (status.st_dev, status.st_ino)
        nodes[path] = _node(full, status, same_as=first_paths.setdefault(key, path))  # type: ignore[arg-type]
    return nodes


def make_tree(root: Path, tree: Tree, *, layer_format: LayerFormat = LayerFormat.DIRECTORY) -> None:
    """Write the tree as a committed layer into `root`, which must not exist."""
    entries = _completed(tree)
    root.mkdir(parents=True)
    for path, entry in sorted(entries.items(), key=lambda item: (isinstance(item[1], HardLink), item[0])):
        _write(root, path, entry, layer_format=layer_format)
    for path, entry in sorted(entries.items(), reverse=True):
        if isinstance(entry, Entry):
            _set_attributes(root / path, entry)


def stack(trees: Sequence[Tree]) -> dict[str, Node]:
    """Compute what the trees upon each other, base first, look like; independent of any filesystem."""
    shown: dict[str, tuple[Entry, str]] = {}
    for number, tree in enumerate(trees):
        entries = _completed(tree)
        for path, entry in entries.items():
            _hide(shown, path, entry)
        for path, entry in entries.items():
            if isinstance(entry, HardLink):
                target = entries[entry.to]
                assert isinstance(target, Entry)
                shown[path] = target, f"{number}:{entry.to}"
            elif isinstance(entry, Entry):
                shown[path] = entry, f"{number}:{path}"
    return _nodes_of(shown)


def has_whiteouts(tree: Tree) -> bool:
    """Tell whether the layer hides anything below it."""
    return any(isinstance(entry, Whiteout) for entry in tree.values())


def _hide(shown: dict[str, tuple[Entry, str]], path: str, entry: Entry | HardLink | Whiteout) -> None:
    """Remove from the lower layers what the entry covers."""
    lower = shown.get(path)
    is_merged = isinstance(entry, Directory) and lower is not None and isinstance(lower[0], Directory)
    if not is_merged:
        shown.pop(path, None)
    if not is_merged or (isinstance(entry, Directory) and entry.is_opaque):
        prefix = "" if path == "." else f"{path}/"
        for below in [other for other in shown if other != "." and other.startswith(prefix)]:
            del shown[below]


def _nodes_of(shown: Mapping[str, tuple[Entry, str]]) -> dict[str, Node]:
    first_paths: dict[str, str] = {}
    return {
        path: replace(_expected(entry), same_as=first_paths.setdefault(identity, path))
        for path, (entry, identity) in sorted(shown.items())
    }


def _expected(entry: Entry) -> Node:
    kind, mode, content = _kind_mode_content(entry)
    xattrs = tuple(sorted(entry.xattrs.items()))
    return Node(
        kind=kind,
        mode=mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime_ns=entry.mtime_ns,
        content=content,
        xattrs=xattrs,
        same_as="",
    )


def _kind_mode_content(entry: Entry) -> tuple[int, int, str]:
    match entry:
        case File():
            return stat.S_IFREG, entry.mode, hashlib.sha256(entry.content).hexdigest()
        case Directory():
            return stat.S_IFDIR, entry.mode, ""
        case Symlink():
            return stat.S_IFLNK, 0o777, entry.target
        case Special():
            return entry.kind, entry.mode, str(entry.device)
    raise TypeError(entry)


def _completed(tree: Tree) -> dict[str, Entry | HardLink | Whiteout]:
    """Add the directories that the tree only implies."""
    parents = {str(parent) for path in tree for parent in PurePosixPath(path).parents}
    return {parent: Directory() for parent in parents | {"."}} | dict(tree)


def _write(root: Path, path: str, entry: Entry | HardLink | Whiteout, *, layer_format: LayerFormat) -> None:
    place = root / path
    match entry:
        case File():
            place.write_bytes(entry.content)
        case Directory():
            place.mkdir(exist_ok=True)
            if entry.is_opaque:
                _write_opaque(place, layer_format)
        case Symlink():
            place.symlink_to(entry.target)
        case Special():
            os.mknod(place, entry.kind | 0o600, entry.device)
        case HardLink():
            place.hardlink_to(root / entry.to)
        case Whiteout():
            _write_whiteout(place, layer_format)


def _write_whiteout(place: Path, layer_format: LayerFormat) -> None:
    if layer_format is LayerFormat.DIRECTORY_AUFS:
        place.with_name(f".wh.{place.name}").touch()
        return
    os.mknod(place, stat.S_IFCHR, 0)
    os.setxattr(place.parent, "trusted.overlay.origin", b"")


def _write_opaque(place: Path, layer_format: LayerFormat) -> None:
    if layer_format is LayerFormat.DIRECTORY_AUFS:
        (place / ".wh..wh..opq").touch()
    else:
        os.setxattr(place, "trusted.overlay.opaque", b"y")


def _set_attributes(place: Path, entry: Entry) -> None:
    os.chown(place, entry.uid, entry.gid, follow_symlinks=False)
    for name, value in entry.xattrs.items():
        os.setxattr(place, name, value, follow_symlinks=False)
    mode = _kind_mode_content(entry)[1]
    if not isinstance(entry, Symlink):
        place.chmod(mode)
    os.utime(place, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)


def _walk(root: Path) -> list[str]:
    paths = ["."]
    for directory, directories, files in os.walk(root):
        paths += [os.path.relpath(os.path.join(directory, name), root) for name in directories + files]  # noqa: PTH118 - names, not places
    return paths


def _node(path: Path, status: os.stat_result, *, same_as: str) -> Node:
    names = set(os.listxattr(path, follow_symlinks=False)) - _IGNORED_XATTRS
    return Node(
        kind=stat.S_IFMT(status.st_mode),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        content=_content(path, status),
        xattrs=tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names)),
        same_as=same_as,
    )


def _content(path: Path, status: os.stat_result) -> str:
    if stat.S_ISREG(status.st_mode):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if stat.S_ISLNK(status.st_mode):
        return str(path.readlink())
    return "" if stat.S_ISDIR(status.st_mode) else str(status.st_rdev)
