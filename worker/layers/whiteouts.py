# SPDX-License-Identifier: Apache-2.0
"""How a tree on disk says what it hides of the layers below: overlayfs's form and aufs's.

Source: kernel 6.12, Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"; aufs(5), "whiteout".
"""

import abc
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from typing_extensions import override

from worker.layers.names import OPAQUE_MARK, WHITEOUT_PREFIX

_WHITEOUT_DEVICE = os.makedev(0, 0)
_AUFS_MODE = 0o444


class WhiteoutForm(abc.ABC):
    """One way to write whiteouts. Directories are given by their descriptors.

    Attributes:
        is_used: Whether a whiteout or an opaque directory has been written.
    """

    def __init__(self) -> None:
        self.is_used = False

    @abc.abstractmethod
    def hide(self, directory: int, name: bytes) -> None:
        """Put a whiteout of `name`, which is not there, and hides nothing yet."""

    @abc.abstractmethod
    def is_hidden(self, directory: int, name: bytes) -> bool:
        """Tell whether a whiteout of `name` is there."""

    @abc.abstractmethod
    def lift(self, directory: int, name: bytes) -> bool:
        """Make way for something of this name; tell whether it had been hidden.

        A whiteout that bears the name itself is left to whoever replaces what is in the way.
        """

    @abc.abstractmethod
    def make_opaque(self, directory: int) -> None:
        """Hide everything the layers below have in the directory; whiteouts in it, now superfluous, go.

        Effect: may be called again. Cost: in proportion to the directory, the first time.
        """

    @abc.abstractmethod
    def is_opaque(self, directory: int) -> bool:
        """Tell whether the directory hides everything below it."""


class OverlayWhiteouts(WhiteoutForm):
    """Character devices 0:0, and an extended attribute on opaque directories.

    A directory with whiteouts is also marked as if it had an origin: overlayfs then filters them when it lists the
    directory even where no lower layer has it. Source: kernel 6.12, fs/overlayfs/inode.c, `ovl_get_inode`.

    Args:
        is_squashed: Use the `user.` attributes that overlayfs reads when mounted with `userxattr`.
    """

    def __init__(self, *, is_squashed: bool) -> None:
        super().__init__()
        namespace = "user" if is_squashed else "trusted"
        self._opaque = f"{namespace}.overlay.opaque"
        self._origin = f"{namespace}.overlay.origin"

    @override
    def hide(self, directory: int, name: bytes) -> None:
        os.mknod(name, stat.S_IFCHR, _WHITEOUT_DEVICE, dir_fd=directory)
        os.setxattr(directory, self._origin, b"")
        self.is_used = True

    @override
    def is_hidden(self, directory: int, name: bytes) -> bool:
        with suppress(FileNotFoundError):
            return is_whiteout_device(os.stat(name, dir_fd=directory, follow_symlinks=False))
        return False

    @override
    def lift(self, directory: int, name: bytes) -> bool:
        return False

    @override
    def make_opaque(self, directory: int) -> None:
        if self.is_opaque(directory):
            return
        os.setxattr(directory, self._opaque, b"y")
        self.is_used = True
        for name in _entries(directory):
            if self.is_hidden(directory, name):
                os.unlink(name, dir_fd=directory)

    @override
    def is_opaque(self, directory: int) -> bool:
        try:
            return os.getxattr(directory, self._opaque) == b"y"
        except OSError as error:
            if error.errno not in {errno.ENODATA, errno.EOPNOTSUPP}:
                raise
            return False


class AufsWhiteouts(WhiteoutForm):
    """Files named as in the archive."""

    @override
    def hide(self, directory: int, name: bytes) -> None:
        _touch(directory, WHITEOUT_PREFIX + name)
        self.is_used = True

    @override
    def is_hidden(self, directory: int, name: bytes) -> bool:
        return self.is_used and _exists(directory, WHITEOUT_PREFIX + name)

    @override
    def lift(self, directory: int, name: bytes) -> bool:
        if not self.is_used:
            return False
        with suppress(FileNotFoundError):
            os.unlink(WHITEOUT_PREFIX + name, dir_fd=directory)
            return True
        return False

    @override
    def make_opaque(self, directory: int) -> None:
        if self.is_opaque(directory):
            return
        for name in _entries(directory):
            if name.startswith(WHITEOUT_PREFIX):
                os.unlink(name, dir_fd=directory)
        _touch(directory, OPAQUE_MARK)
        self.is_used = True

    @override
    def is_opaque(self, directory: int) -> bool:
        return self.is_used and _exists(directory, OPAQUE_MARK)


def is_whiteout_device(status: os.stat_result) -> bool:
    """Tell whether this is how overlayfs writes a whiteout."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _WHITEOUT_DEVICE


def _entries(directory: int) -> Iterator[bytes]:
    with os.scandir(directory) as entries:
        for entry in entries:
            yield os.fsencode(entry.name)


def _exists(directory: int, name: bytes) -> bool:
    with suppress(FileNotFoundError):
        os.stat(name, dir_fd=directory, follow_symlinks=False)
        return True
    return False


def _touch(directory: int, name: bytes) -> None:
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _AUFS_MODE, dir_fd=directory))
