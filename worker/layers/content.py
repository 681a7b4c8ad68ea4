# SPDX-License-Identifier: Apache-2.0
"""Make what an entry describes: one small function for each type of entry.

Every name is used relative to the descriptor of its directory and never followed; what is in the way is removed first,
because the last entry of a name wins.
"""

import os
import stat
from collections.abc import Callable
from typing import TypeVar

from worker.layers.attributes import DEFAULT_ACL, clear_xattrs, set_attributes
from worker.layers.files import write_data, write_extents
from worker.layers.implied import ImpliedDirs
from worker.layers.names import WHITEOUT_PREFIX, joined, normalised
from worker.layers.refusal import Refusal
from worker.layers.tar_entry import EntryType, TarEntry
from worker.layers.tar_reader import TarReader
from worker.layers.tree import Directory, Tree
from worker.layers.whiteouts import WhiteoutForm, is_whiteout_device

_T = TypeVar("_T")

_BLOCK_BYTES = 4096
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_UNFINISHED_MODE = 0o600
_DEVICES = {EntryType.CHARACTER_DEVICE: stat.S_IFCHR, EntryType.BLOCK_DEVICE: stat.S_IFBLK}
_NO_TARGET = "the target of the hard link is not in this layer"


class ContentMaker:
    """Makes entries in a tree.

    Attributes:
        disk_bytes: What was made takes so far, rounded to blocks; estimated, since filesystems differ.
    """

    def __init__(
        self, reader: TarReader, tree: Tree, *, form: WhiteoutForm, implied: ImpliedDirs, is_squashed: bool
    ) -> None:
        self.disk_bytes = _BLOCK_BYTES
        self._reader = reader
        self._tree = tree
        self._form = form
        self._implied = implied
        self._is_squashed = is_squashed
        self._makers: dict[EntryType, Callable[[Directory, bytes, TarEntry], None]] = {
            EntryType.REGULAR: self._make_regular,
            EntryType.DIRECTORY: self._make_directory,
            EntryType.SYMLINK: self._make_symlink,
            EntryType.HARD_LINK: self._make_hard_link,
            EntryType.CHARACTER_DEVICE: self._make_device,
            EntryType.BLOCK_DEVICE: self._make_device,
            EntryType.FIFO: self._make_fifo,
        }

    def make(self, parent: bytes, name: bytes, entry: TarEntry) -> None:
        """Make what `entry` describes at `name` in the directory `parent`, which is made if the layer has none."""
        if not self._is_lost(entry):
            directory = self._tree.make_parents(parent)
            self._implied.fill(parent)
            self._makers[entry.type](directory, name, entry)

    def set_root(self, entry: TarEntry) -> None:
        """Take attributes for the root.

        As anything but a directory it would take the tree's own place in the store. Source: CVE-2021-29136.

        Raises:
            Refusal: It is anything but a directory.
        """
        if entry.type is not EntryType.DIRECTORY:
            raise Refusal(f"the root of the layer is a {entry.type.value}")
        clear_xattrs(self._tree.root.descriptor)
        self._set_directory(self._tree.root, entry)

    def _is_lost(self, entry: TarEntry) -> bool:
        """Tell what this node cannot make; refuse what overlayfs would take for a whiteout."""
        if entry.type is EntryType.CHARACTER_DEVICE and entry.device == (0, 0):
            raise Refusal("character device 0:0 is a whiteout in disguise")
        return self._is_squashed and entry.type in _DEVICES

    def _make_regular(self, directory: Directory, name: bytes, entry: TarEntry) -> None:
        descriptor = self._create(
            directory, name, lambda: os.open(name, _CREATE, _UNFINISHED_MODE, dir_fd=directory.descriptor)
        )
        try:
            self._write(descriptor, entry)
            set_attributes(descriptor, entry, is_squashed=self._is_squashed)
        finally:
            os.close(descriptor)
        self.disk_bytes += -(-entry.data_bytes // _BLOCK_BYTES) * _BLOCK_BYTES

    def _write(self, descriptor: int, entry: TarEntry) -> None:
        if entry.extents is None:
            write_data(descriptor, self._reader.data())
        else:
            write_extents(descriptor, self._reader.data(), entry.extents)
            os.ftruncate(descriptor, entry.size_bytes)

    def _make_directory(self, parent: Directory, name: bytes, entry: TarEntry) -> None:
        """Make a directory, or let one that is there take the attributes."""
        directory = self._tree.enter(parent, name)
        if directory is None:
            directory = self._tree.make(parent, name)
            self.disk_bytes += _BLOCK_BYTES
        else:
            clear_xattrs(directory.descriptor)
        self._set_directory(directory, entry)

    def _set_directory(self, directory: Directory, entry: TarEntry) -> None:
        self._implied.list_entry(directory.path)
        set_attributes(directory.descriptor, entry, is_squashed=self._is_squashed)
        directory.mtime_ns = entry.mtime_ns
        self._tree.hold_default_acl(directory, None if self._is_squashed else entry.xattrs.get(DEFAULT_ACL))

    def _make_symlink(self, directory: Directory, name: bytes, entry: TarEntry) -> None:
        self._create(directory, name, lambda: os.symlink(entry.linkname, name, dir_fd=directory.descriptor))
        self._set_special(directory, name, entry)

    def _make_device(self, directory: Directory, name: bytes, entry: TarEntry) -> None:
        mode, number = _DEVICES[entry.type] | _UNFINISHED_MODE, os.makedev(*entry.device)
        self._create(directory, name, lambda: os.mknod(name, mode, number, dir_fd=directory.descriptor))
        self._set_special(directory, name, entry)

    def _make_fifo(self, directory: Directory, name: bytes, entry: TarEntry) -> None:
        self._create(directory, name, lambda: os.mkfifo(name, _UNFINISHED_MODE, dir_fd=directory.descriptor))
        self._set_special(directory, name, entry)

    def _set_special(self, directory: Directory, name: bytes, entry: TarEntry) -> None:
        """Set attributes of what opening would follow, block on or have effects on."""
        place = os.open(name, _PLACE, dir_fd=directory.descriptor)
        try:
            set_attributes(_magic_link(place), entry, is_squashed=self._is_squashed)
        finally:
            os.close(place)

    def _make_hard_link(self, directory: Directory, name: bytes, entry: TarEntry) -> None:
        """Join a file of this layer; the entry's own attributes mean nothing, the file has them already."""
        path = directory.path
        source = self._open_link_target(entry.linkname, link_path=joined(path, name))
        try:
            # Finding the target may have closed `directory`.
            directory = self._tree.make_parents(path)
            self._create(
                directory,
                name,
                lambda: os.link(_magic_link(source), name, dst_dir_fd=directory.descriptor, follow_symlinks=True),
            )
        finally:
            os.close(source)

    def _open_link_target(self, linkname: bytes, *, link_path: bytes) -> int:
        """Return an O_PATH descriptor of the file; of a symbolic link, not of what it leads to."""
        target = normalised(linkname)
        parent, _, name = target.rpartition(b"/")
        if target == link_path:
            raise Refusal("a hard link to itself")
        if target.startswith(link_path + b"/"):
            raise Refusal("the hard link replaces a directory that holds its target")
        directory = self._tree.find(parent)
        if directory is None or not name or name.startswith(WHITEOUT_PREFIX):
            raise Refusal(_NO_TARGET)
        try:
            place = os.open(name, _PLACE, dir_fd=directory.descriptor)
        except FileNotFoundError as error:
            raise Refusal(_NO_TARGET) from error
        status = os.fstat(place)
        if stat.S_ISDIR(status.st_mode) or is_whiteout_device(status):
            os.close(place)
            raise Refusal("the target of the hard link is a directory or a whiteout")
        return place

    def _create(self, directory: Directory, name: bytes, create: Callable[[], _T]) -> _T:
        """Call `create`, and once more after removing what is in its way."""
        self._form.lift(directory.descriptor, name)
        try:
            return create()
        except FileExistsError:
            self._tree.remove(directory, name)
            return create()


def _magic_link(descriptor: int) -> str:
    """Return the path that leads to what is open, without following it if it is a link itself. Source: proc(5)."""
    return f"/proc/self/fd/{descriptor}"
