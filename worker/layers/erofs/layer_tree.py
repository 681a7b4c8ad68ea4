# SPDX-License-Identifier: Apache-2.0
"""`LayerTree`: one layer's entries applied in order, as `worker.layers.directory` does on disk, in memory.

The two must agree, or an image would look different on nodes of different formats: names, whiteouts and implied
directories are judged by the same code, and every refusal is the same. The last entry of a name wins; whiteouts have
the same effect wherever they stand; hard links reach only the layer's own files.

Cost: memory in proportion to the layer's entries, `IndexBudget` says how much.
"""

from worker.layers.erofs.budget import IndexBudget, linked_bytes
from worker.layers.erofs.inode import encode_directory
from worker.layers.erofs.tree import Directory, Linked, Node, Whiteout
from worker.layers.implied import ImpliedDirs
from worker.layers.names import WHITEOUT_PREFIX, Place, Role, normalised, place_of
from worker.layers.refusal import Refusal
from worker.layers.tar_entry import EntryType, TarEntry

_NO_TARGET = "the target of the hard link is not in this layer"


class LayerTree:
    """What a layer has, hides and implies so far.

    Attributes:
        root: Its root.
        has_whiteouts: Whether it hides anything below it.
        entries: How many were applied.
    """

    def __init__(self, *, max_implied_bytes: int, max_index_bytes: int) -> None:
        self.root = Directory()
        self.has_whiteouts = False
        self.entries = 0
        self._implied = ImpliedDirs(max_bytes=max_implied_bytes)
        # What is replaced is not given back.
        self._budget = IndexBudget(max_index_bytes)
        # Entries come by the directory: the one of the last entry is found without a walk.
        self._near_path = b""
        self._near = self.root

    def take_place(self, entry: TarEntry) -> Place | None:
        """Apply the entry unless it makes a file; return where that goes.

        Raises:
            Refusal: The entry cannot be applied.
            Excess: The layer implies too many directories.
        """
        place = place_of(entry.name)
        if place.role is Role.IGNORED:
            return None
        self.entries += 1
        if place.role is Role.WHITEOUT:
            self._hide(place)
        elif place.role is Role.OPAQUE:
            self._hide_all(place)
        elif not place.name:
            self._set_root(entry)
        elif entry.type is EntryType.DIRECTORY:
            self._put_directory(place, entry)
        elif entry.type is EntryType.HARD_LINK:
            self._put_link(place, entry)
        else:
            return place
        return None

    def put_file(self, place: Place, inode: bytes) -> None:
        """Give a file that is no directory its name.

        Raises:
            Excess: The layer implies too many directories.
        """
        self._put(self._filled(place.parent), place.name, inode)

    def finish(self) -> None:
        """Drop what only whiteouts had asked for and nothing needs; mark the implied directories."""
        for path in self._implied.ghosts():
            parent, _, name = path.rpartition(b"/")
            directory = self._find(parent)
            if directory is not None and type(directory.children.get(name)) is Directory and self._is_covered(path):
                del directory.children[name]
        for path in self._implied.paths():
            directory = self._find(path)
            if directory is not None:
                directory.is_implied = True

    def _set_root(self, entry: TarEntry) -> None:
        if entry.type is not EntryType.DIRECTORY:
            raise Refusal(f"the root of the layer is a {entry.type.value}")
        self._implied.list_entry(b"")
        self._describe(self.root, entry)

    def _put_directory(self, place: Place, entry: TarEntry) -> None:
        """Make a directory, or let one that is there take the attributes."""
        parent = self._filled(place.parent)
        directory = parent.children.get(place.name)
        if type(directory) is not Directory:
            directory = self._make(parent, place.name)
        self._implied.list_entry(place.path)
        self._describe(directory, entry)

    def _describe(self, directory: Directory, entry: TarEntry) -> None:
        inode = encode_directory(entry)
        self._budget.take(2 * (len(inode) - len(directory.inode)))
        directory.inode = inode

    def _put_link(self, place: Place, entry: TarEntry) -> None:
        """Join a file of this layer; the entry's own attributes mean nothing, the file has them already."""
        directory = self._filled(place.parent)
        target = normalised(entry.linkname)
        if target == place.path:
            raise Refusal("a hard link to itself")
        if target.startswith(place.path + b"/"):
            raise Refusal("the hard link replaces a directory that holds its target")
        self._put(directory, place.name, self._linked(target))

    def _linked(self, target: bytes) -> Linked:
        """Return the file of a path as one that may have several names."""
        parent, _, name = target.rpartition(b"/")
        directory = self._find(parent)
        if directory is None or not name or name.startswith(WHITEOUT_PREFIX) or name not in directory.children:
            raise Refusal(_NO_TARGET)
        node = directory.children[name]
        if isinstance(node, Directory | Whiteout):
            raise Refusal("the target of the hard link is a directory or a whiteout")
        if isinstance(node, bytes):
            self._budget.take(linked_bytes(node))
            node = directory.children[name] = Linked(node)
        return node

    def _hide(self, place: Place) -> None:
        """Hide a name of the layers below, and nothing that this layer has by that name, earlier or later.

        Of a directory that this layer has, that leaves its own entries: it becomes opaque.
        """
        directory = self._reach(place.parent)
        if directory is None or directory.is_opaque:
            return
        own = directory.children.get(place.name)
        if own is not None and type(own) is not Directory:
            return
        if type(own) is Directory and not self._implied.is_ghost(place.path):
            own.make_opaque()
        else:
            self._put(directory, place.name, Whiteout.OF_NAME)
        self.has_whiteouts = True

    def _hide_all(self, place: Place) -> None:
        directory = self._reach(place.parent)
        if directory is not None:
            directory.make_opaque()
            self.has_whiteouts = True

    def _filled(self, path: bytes) -> Directory:
        """Return the directory, made if the layer has none, with what is in the way gone; it holds an entry now."""
        if path != self._near_path:
            directory = self.root
            for depth, name in enumerate(path.split(b"/") if path else ()):
                child = directory.children.get(name)
                if type(child) is not Directory:
                    child = self._make_implied(directory, name, path=_upto(path, depth), is_ghost=False)
                directory = child
            self._near_path, self._near = path, directory
        self._implied.fill(path)
        return self._near

    def _reach(self, path: bytes) -> Directory | None:
        """Return the directory of a whiteout; None if the layer itself has something else there, or hides it.

        Those that are missing are made as ghosts.
        """
        directory = self.root
        for depth, name in enumerate(path.split(b"/") if path else ()):
            child = directory.children.get(name)
            if child is None:
                child = self._make_implied(directory, name, path=_upto(path, depth), is_ghost=True)
            if type(child) is not Directory:
                return None
            directory = child
        return directory

    def _find(self, path: bytes) -> Directory | None:
        directory = self.root
        for name in path.split(b"/") if path else ():
            child = directory.children.get(name)
            if type(child) is not Directory:
                return None
            directory = child
        return directory

    def _make_implied(self, parent: Directory, name: bytes, *, path: bytes, is_ghost: bool) -> Directory:
        self._implied.add(path, is_ghost=is_ghost)
        return self._make(parent, name)

    def _make(self, parent: Directory, name: bytes) -> Directory:
        """Make a directory. What is in its place, a whiteout included, hid the layers below; so must the directory."""
        hides = name in parent.children
        self.has_whiteouts = self.has_whiteouts or hides
        directory = Directory(is_opaque=hides)
        self._put(parent, name, directory)
        return directory

    def _put(self, parent: Directory, name: bytes, node: Node) -> None:
        if type(parent.children.get(name)) is Directory:
            self._near_path, self._near = b"", self.root
        parent.children[name] = node
        self._budget.take_node(name, node)

    def _is_covered(self, path: bytes) -> bool:
        """Tell whether a directory above hides what the layers below have at the path."""
        while path:
            path = path.rpartition(b"/")[0]
            directory = self._find(path)
            if directory is not None and directory.is_opaque:
                return True
        return False


def _upto(path: bytes, depth: int) -> bytes:
    """Return the first `depth` + 1 components of the path."""
    return b"/".join(path.split(b"/")[: depth + 1])
