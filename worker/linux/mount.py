# SPDX-License-Identifier: Apache-2.0
"""Mount and unmount; what is to be mounted is data, so that plans can be checked without root.

Two interfaces of the kernel do the same. The new one (fsopen, fsconfig, fsmount, move_mount; Linux 5.2) takes options
one by one, gives an error text, and shows the mount only when it is complete. The old one, mount(2), takes them joined
in one page of 4 KiB. `mount_filesystem` is the first, `mount_in_one_page` the second.

A directory among the options is given as a `Path`. One that an interface cannot take as text (fsconfig allows 255
bytes; commas, colons and backslashes are separators and escapes in some filesystems) is opened and named
`/proc/self/fd/<n>` instead, which is short whatever the path. Where a page does not hold even those, all of them are
named `<n>` alone, with /proc/self/fd as the working directory: some 800 fit. The ancestor made temporary links for this
and leaked them when it was killed; a descriptor dies with its process.

Source: mount(2), umount2(2), mount_setattr(2); https://man7.org/linux/man-pages/man2/fsopen.2.html;
kernel 6.12, fs/fsopen.c.
"""

import ctypes
import errno
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

from worker.errors import MountFailed
from worker.linux import libc
from worker.linux.durable import reporting_full_disk
from worker.linux.mountinfo import MountPoint, mounts_at_or_below

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_MS_REMOUNT = 1 << 5
_MS_BIND = 1 << 12
_MS_SLAVE = 1 << 19
_MS_SHARED = 1 << 20
_CLONE_FS = 0x200
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8

_PLAIN_PATH = re.compile(rb"[^,:\\]{1,255}")
_DESCRIPTORS = "/proc/self/fd"
_PAGE_BYTES = 4096
_LOG_BYTES = 4096
_UNMOUNT_ROUNDS = 100


class MountFlag(IntFlag):
    """Flags of one mount; mount(2) and mount_setattr(2) give them the same values."""

    NONE = 0
    READ_ONLY = 1
    NO_SUID = 2
    NO_DEVICES = 4
    NO_EXEC = 8


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a filesystem; the same name may stand several times.

    Attributes:
        name: Alone, or before an equals sign.
        value: Text, a directory, or pieces of text and directories that are joined to one text.
    """

    name: str
    value: str | Path | tuple[str | Path, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A filesystem to be mounted.

    Attributes:
        fs_type: As in /proc/filesystems.
        source: Shown in mountinfo, otherwise without meaning to filesystems that have no device.
        target: An existing directory.
        options: In the order the filesystem is to see them.
        flags: Of the mount.
    """

    fs_type: str
    source: str
    target: Path
    options: tuple[Option, ...] = ()
    flags: MountFlag = MountFlag.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class BindMount:
    """A directory to be shown at a second place as well, without what is mounted below it."""

    source: Path
    target: Path
    flags: MountFlag = MountFlag.NONE


class UnknownOption(MountFailed):
    """The filesystem of this kernel has no such option."""


def mount_filesystem(mount: Mount) -> None:
    """Mount through the new interface.

    Effect: the mount appears at the target complete or not at all, on top of what may be mounted there.

    Raises:
        UnknownOption: An option was refused by its name.
        MountFailed: The kernel is too old or refused, with its words.
        StorageExhausted: The filesystem needed room and found none.
    """
    with ExitStack() as stack, _reporting(mount.target):
        flags = MountFlag(mount.flags)
        context = _closing(stack, libc.system_call(libc.SYS_FSOPEN, mount.fs_type.encode(), _FSOPEN_CLOEXEC))
        _configure(context, "source", mount.source, target=mount.target)
        for option in mount.options:
            value = None if option.value is None else _as_text(option.value, lambda path: _named(path, stack))
            _configure(context, option.name, value, target=mount.target)
        with _reading_log(context, target=mount.target):
            libc.system_call(libc.SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
            made = _closing(stack, libc.system_call(libc.SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, flags.value))
        _attach(made, mount.target)


def mount_in_one_page(mount: Mount) -> None:
    """Mount through mount(2), for kernels or filesystems that lack what `mount_filesystem` needs.

    Raises:
        MountFailed: The options do not fit into one page, or the kernel refused.
        StorageExhausted: The filesystem needed room and found none.
    """
    with ExitStack() as stack, _reporting(mount.target):
        data = _joined(mount.options, lambda path: _named(path, stack))
        if len(data) < _PAGE_BYTES:
            _mount_old(mount, data)
            return
        data = _joined(mount.options, lambda path: str(_opened(path, stack)))
        if len(data) >= _PAGE_BYTES:
            raise MountFailed(target=str(mount.target), reason=f"options of {len(data)} bytes do not fit into one page")
        with ThreadPoolExecutor(1) as thread:
            thread.submit(_mount_old, mount, data, directory=_DESCRIPTORS).result()


def mount_bind(bind: BindMount) -> None:
    """Show a directory at a second place.

    Effect: from Linux 5.12 the mount appears at the target with its flags or not at all; before, a caller killed here
    leaves one without them.

    Raises:
        MountFailed: The kernel refused.
    """
    with ExitStack() as stack, _reporting(bind.target):
        try:
            flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
            tree = _closing(stack, libc.system_call(libc.SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(bind.source), flags))
            _set_flags(tree, bind.flags)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            _bind_in_two_steps(bind)
        else:
            _attach(tree, bind.target)


def receive_and_share(target: Path) -> None:
    """Let a mount just made receive the unmounts of its parent's peers, and share its own mounts with its copies.

    What a container mounts in its rootfs does not spread to the host; what the host takes down goes away in the
    container's copy too. As the ancestor did: slave first, then shared.

    Raises:
        MountFailed: Nothing is mounted there, or the kernel refused.
    """
    with _reporting(target):
        for propagation in (_MS_SLAVE, _MS_SHARED):
            libc.call("mount", None, os.fsencode(target), None, propagation, None)


def repair_propagation(target: Path) -> None:
    """Complete what a caller killed inside `receive_and_share` left half done.

    A mount that is shared is left alone: a second MS_SLAVE would make it a slave of the copies that containers have of
    it. So one whose maker was killed before the first step, under a shared parent, stays a peer of the copies that the
    parent's peers got; nobody can tell it from a finished one.

    Raises:
        MountFailed: Nothing is mounted there, or the kernel refused.
    """
    real_target = target.parent.resolve() / target.name
    stacked = [mount for mount in mounts_at_or_below(real_target) if mount.path == real_target]
    if not stacked:
        raise MountFailed(target=str(target), reason="nothing is mounted there")
    if not stacked[0].is_shared:
        receive_and_share(target)


def unmount_tree(path: Path) -> int:
    """Unmount everything at `path` and below it, stacked mounts too, in use or not.

    A mount in use disappears from the tree at once and ends with its last user.

    Effect: on return nothing is mounted there in this mount namespace.

    Returns:
        How many mounts there were.

    Raises:
        MountFailed: The kernel refused; calling again continues.
    """
    real_path = path.parent.resolve() / path.name
    unmounted = 0
    for _ in range(_UNMOUNT_ROUNDS):
        mounts = mounts_at_or_below(real_path)
        if not mounts:
            return unmounted
        for mount in mounts:
            unmounted += _unmount(mount)
    raise MountFailed(target=str(path), reason="mounts come back as fast as they are taken down")


def _unmount(mount: MountPoint) -> bool:
    with _reporting(mount.path):
        try:
            libc.call("umount2", os.fsencode(mount.path), _MNT_DETACH | _UMOUNT_NOFOLLOW)
        except OSError as error:
            # No mount point any more: it went with its parent, or by propagation.
            if error.errno not in {errno.EINVAL, errno.ENOENT}:
                raise
            return False
    return True


def _configure(context: int, name: str, value: str | None, *, target: Path) -> None:
    command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
    text = None if value is None else os.fsencode(value)
    with _reading_log(context, target=target):
        libc.system_call(libc.SYS_FSCONFIG, context, command, name.encode(), text, 0)


def _mount_old(mount: Mount, data: bytes, *, directory: str | None = None) -> None:
    """Call mount(2), with a working directory if one is given: the calling thread's own, as it was before on return."""
    arguments = (mount.source.encode(), os.fsencode(mount.target), mount.fs_type.encode(), mount.flags.value, data)
    if directory is None:
        libc.call("mount", *arguments)
        return
    libc.call("unshare", _CLONE_FS)
    before = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        os.chdir(directory)
        libc.call("mount", *arguments)
    finally:
        # Where threads are greenlets, this one is not the only one to have it.
        os.chdir(before)
        os.close(before)


def _as_text(value: str | Path | tuple[str | Path, ...], name: Callable[[Path], str]) -> str:
    if isinstance(value, tuple):
        return "".join(_as_text(piece, name) for piece in value)
    return name(value) if isinstance(value, Path) else value


def _joined(options: tuple[Option, ...], name: Callable[[Path], str]) -> bytes:
    texts = (
        option.name if option.value is None else f"{option.name}={_as_text(option.value, name)}" for option in options
    )
    return os.fsencode(",".join(texts))


def _named(path: Path, stack: ExitStack) -> str:
    """Name a directory by its path, or if an interface cannot take that, by a descriptor."""
    return str(path) if _PLAIN_PATH.fullmatch(os.fsencode(path)) else f"{_DESCRIPTORS}/{_opened(path, stack)}"


def _opened(path: Path, stack: ExitStack) -> int:
    """Open a directory until the mount is made."""
    return _closing(stack, os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


def _closing(stack: ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor


def _attach(made: int, target: Path) -> None:
    libc.system_call(libc.SYS_MOVE_MOUNT, made, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)


class _MountAttributes(ctypes.Structure):
    """What mount_setattr(2) takes: attributes to set and to clear, propagation, a user namespace."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user_namespace"))


def _set_flags(tree: int, flags: MountFlag) -> None:
    attributes = _MountAttributes(flags.value, 0, 0, 0)
    size = ctypes.sizeof(attributes)
    libc.system_call(libc.SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(attributes), size)


def _bind_in_two_steps(bind: BindMount) -> None:
    """Bind, then remount with the flags: mount(2) ignores them in the first step."""
    target = os.fsencode(bind.target)
    libc.call("mount", os.fsencode(bind.source), target, None, _MS_BIND, None)
    libc.call("mount", None, target, None, _MS_BIND | _MS_REMOUNT | bind.flags.value, None)


@contextmanager
def _reporting(target: Path) -> Iterator[None]:
    """Turn what the kernel refuses into `MountFailed`, a full filesystem into `StorageExhausted`."""
    try:
        with reporting_full_disk(target):
            yield
    except OSError as error:
        raise MountFailed(target=str(target), reason=error.strerror or str(error)) from error


@contextmanager
def _reading_log(context: int, *, target: Path) -> Iterator[None]:
    """Add the kernel's words to what it refuses: one message each read, such as `e overlay: bad …`."""
    try:
        yield
    except OSError as error:
        log = "; ".join(_read_log(context))
        if error.errno == errno.EINVAL and "Unknown parameter" in log:
            raise UnknownOption(target=str(target), reason=log) from error
        raise OSError(error.errno, f"{error.strerror}: {log}" if log else error.strerror) from error


def _read_log(context: int) -> Iterator[str]:
    # ENODATA says that there are no more.
    with suppress(OSError):
        while message := os.read(context, _LOG_BYTES):
            yield message.decode(errors="replace").strip().removeprefix("e ")
