# SPDX-License-Identifier: Apache-2.0
"""Whether this node can show images in the EROFS format: asked by showing one."""

from pathlib import Path

from worker.errors import MountFailed
from worker.layers.erofs.format import BLOCK_BYTES, Device
from worker.layers.erofs.image import encode_image
from worker.layers.erofs.inode import TAR_DEVICE, encode_file
from worker.layers.erofs.tree import Directory
from worker.layers.tar_entry import NO_XATTRS, EntryType, TarEntry
from worker.linux.erofs import mount_erofs
from worker.linux.scratch import scratch_dir
from worker.linux.statfs import may_mount

_CONTENT = bytes(range(256)) * (BLOCK_BYTES // 256)
_FILE = TarEntry(
    name=b"file",
    type=EntryType.REGULAR,
    mode=0o600,
    uid=0,
    gid=0,
    mtime_ns=0,
    size_bytes=len(_CONTENT),
    linkname=b"",
    device=(0, 0),
    xattrs=NO_XATTRS,
    data_offset=BLOCK_BYTES,
    data_bytes=len(_CONTENT),
    extents=None,
)


def erofs_unsupported_reason(directory: Path) -> str | None:
    """Say why layers in `directory` cannot be mounted as EROFS, or None if they can.

    Effect: mounts a tiny image of two files in it for a moment; nothing is left behind.
    Cost: a few milliseconds.
    """
    if not may_mount():
        return "it needs root with the capability CAP_SYS_ADMIN"
    try:
        with scratch_dir(directory) as home:
            return _try(home)
    except (OSError, MountFailed) as error:
        return f"a trial mount in {directory} failed: {error}"


def _try(home: Path) -> str | None:
    """Mount an image whose one file lies in another file, and read it."""
    image, tar, target = home / "image", home / "tar", home / "mount"
    root = Directory()
    root.children[_FILE.name] = encode_file(_FILE, device=TAR_DEVICE, offset=_FILE.data_offset)
    image.write_bytes(encode_image(root, [Device(tag=b"probe", size_bytes=2 * BLOCK_BYTES)]))
    tar.write_bytes(bytes(BLOCK_BYTES) + _CONTENT)
    target.mkdir()
    mount_erofs(image, [tar], target)
    if (target / "file").read_bytes() != _CONTENT:
        return f"a file of a trial image in {home.parent} came back as something else"
    return None
