# SPDX-License-Identifier: Apache-2.0
"""`ImageMounts`: images in EROFS format, mounted once per node for all rootfses that stand on them.

An image is mounted for its first user and unmounted after its last one. Who uses it is written down beside the mount,
so that any process of the node can say so, and a flock per image orders them. Mounts do not outlive a reboot, but the
users do: whoever brings back a rootfs acquires again, and finds the image mounted or mounts it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.errors import ProvisionerError
from worker.linux.durable import reporting_full_disk
from worker.linux.erofs import make_private, mount_erofs
from worker.linux.flock import FileLock, locked
from worker.linux.mount import unmount_tree
from worker.linux.remove import remove_tree
from worker.linux.statfs import is_mount_point
from worker.oci.digest import Digest
from worker.paths import WorkPaths
from worker.store.merged import MergedImage

_LOCK_SUFFIX = ".lock"
_UNFINISHED = "user.partial"


class ImageMounts:
    """The images that one node shows. Every method may be called again after a crash at any point, and beside itself.

    A *user* is any text that names a rootfs of this node, the same one each time.
    """

    def __init__(self, paths: WorkPaths) -> None:
        self._paths = paths

    def acquire(self, digest: Digest, image: MergedImage, *, user: str) -> Path:
        """Return where the image is mounted, and keep it mounted for `user` until it is released.

        Effect: on return it is mounted, not necessarily by this call.
        Cost: three or four system calls if it is.

        Raises:
            MountFailed: The kernel refused; the user is then none.
            RecordCorrupt: The image's file is damaged and not mounted; likewise.
            StorageExhausted: The work directory is full.
        """
        mount_dir = self._paths.image_mount_dir(str(digest))
        with self._locked(digest):
            try:
                with reporting_full_disk(mount_dir):
                    self._add_user(digest, user)
                    mount_dir.mkdir(mode=0o700, exist_ok=True)
                if not is_mount_point(mount_dir):
                    image.check()
                    mount_erofs(image.image_path, image.device_paths, mount_dir)
                make_private(mount_dir)
            except ProvisionerError:
                self._drop_user(digest, user)
                raise
        return mount_dir

    def release(self, digest: Digest, *, user: str) -> bool:
        """Let go of the image for `user`, who need not have it, and unmount it if that was the last one.

        Returns:
            Whether the image is mounted no more.

        Raises:
            MountFailed: The kernel refused; calling again continues.
        """
        if not self._paths.image_dir(str(digest)).exists():
            return True
        with self._locked(digest):
            return self._drop_user(digest, user)

    def detach(self, digest: Digest) -> bool:
        """Take the mount away from those who come later; tell whether there was one.

        A rootfs that stands on it keeps it, files since replaced included; the next `acquire` mounts anew.

        Raises:
            MountFailed: The kernel refused; calling again continues.
        """
        if not self._paths.image_dir(str(digest)).exists():
            return False
        with self._locked(digest):
            return unmount_tree(self._paths.image_mount_dir(str(digest))) > 0

    def users(self, digest: Digest) -> frozenset[str]:
        """Return who keeps the image mounted."""
        try:
            return frozenset(path.read_text() for path in self._paths.image_users_dir(str(digest)).iterdir())
        except FileNotFoundError:
            return frozenset()

    def release_unneeded(self, is_needed: Callable[[Digest, str], bool]) -> int:
        """Let go of what dead workers left, and unmount what nobody uses; return how many images were unmounted.

        Args:
            is_needed: Says whether a user of an image still is one, asked with the image's flock held: whoever writes
                down a rootfs before it acquires the image is never missed.

        Raises:
            MountFailed: The kernel refused; calling again continues.
        """
        return sum(self._release_unneeded(digest, is_needed) for digest in self._digests())

    def _release_unneeded(self, digest: Digest, is_needed: Callable[[Digest, str], bool]) -> bool:
        with self._locked(digest):
            for user in self.users(digest):
                if not is_needed(digest, user):
                    self._paths.image_user_path(str(digest), user=user).unlink(missing_ok=True)
            return self._retire(digest)

    def _digests(self) -> list[Digest]:
        """List the images of which anything is left, were it a lock."""
        names = {path.name.removesuffix(_LOCK_SUFFIX) for path in self._paths.images_dir.glob("*")}
        return [Digest.parse(name) for name in sorted(names)]

    @contextmanager
    def _locked(self, digest: Digest) -> Iterator[FileLock]:
        self._paths.images_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self._paths.image_lock_path(str(digest)), exclusive=True) as lock:
            yield lock

    def _add_user(self, digest: Digest, user: str) -> None:
        """Write down the user, whole or not at all."""
        path = self._paths.image_user_path(str(digest), user=user)
        if path.exists():
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self._paths.image_dir(str(digest)) / _UNFINISHED
        partial.write_text(user)
        partial.rename(path)

    def _drop_user(self, digest: Digest, user: str) -> bool:
        self._paths.image_user_path(str(digest), user=user).unlink(missing_ok=True)
        return self._retire(digest)

    def _retire(self, digest: Digest) -> bool:
        """Unmount the image and forget it, unless somebody uses it.

        The lock goes last, while it is held: who waits for it notices and locks the next file of its name.
        """
        image_dir = self._paths.image_dir(str(digest))
        if next(self._paths.image_users_dir(str(digest)).glob("*"), None) is not None:
            return False
        if image_dir.exists():
            unmount_tree(image_dir)
            remove_tree(image_dir)
        self._paths.image_lock_path(str(digest)).unlink(missing_ok=True)
        return True
