# SPDX-License-Identifier: Apache-2.0
"""The on-disk tree; the only module that joins paths of it.

::

    STORE_DIR/                      may be shared by nodes (NFSv4, CephFS); mode 0700
      store.json                    the store's identity: the cluster lock is named after it
      lock                          flock: shared by provision and destroy, exclusive for prune
      images/<digest>/              manifest.json, config.json
        implied-<format>/           one more lower directory on top: see worker/store/implied.py
        merged-2.erofs              all layers in one, for the EROFS format: see worker/store/merged.py
        refs/<hash>                 one per (node, container, name) or pull that needs the image
      references/<hash>             reference and platform -> digest, and marks of who opened it there
      openers.key                   what the marks are made with; mode 0600
      layers/<format>/<diffid>/     committed: layer.json beside `tree/` (directory format), or beside layer.tar,
                                    layer.idx and where there are sparse files layer.blob (EROFS format)
      staging/<hash>/               invisible until renamed in
      staging/<hash>.lock           flock of whoever fills the staging directory of the same name
      acis/<hash>                   what an App Container archive told that was read before
      partial/<digest>              what arrived of a large blob so far; flock: whoever adds to it
      trash/                        renamed out before deletion
    WORK_DIR/                       per node; mode 0700
      node.lock                     flock: one `recover` at a time
      recovery.lock                 flock: one `recover` at a time, with the marks around it
      worker.lock                   flock: shared by the workers that are up
      epoch                         what Redis remembered when this node last looked: see worker/epoch.py
      containers/<part>/            a container; nested ones below it
        lock                        flock: mounts and unmounts of this container
        record.json                 what was provisioned here: the truth
        rootfses/<name>/            rootfs/ upper/ work/
          config.json volumes/      a runtime bundle, if one was asked for
          mount-points/             lowest in a rootfs that is read-only then
        containers/<part>/          the containers nested in it
      images/<digest>/              an image in EROFS format that this node shows
        mount/                      the mount
        users/<hash>                one per rootfs that stands on it
      images/<digest>.lock          flock: mounts and unmounts of this image
      runs/<id>/                    the bundle of one `provisioner run`
      runs/<id>.lock                flock of whoever runs it
      trash/
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


def _hashed(*parts: str) -> str:
    """Name a file after strings that may be long or hold slashes; NUL cannot be in any of them."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class StorePaths:
    """Paths below STORE_DIR. Digests are given in their text form, already validated."""

    store_dir: Path

    @property
    def identity_path(self) -> Path:
        """The file that holds the store's identity."""
        return self.store_dir / "store.json"

    @property
    def lock_path(self) -> Path:
        """The flock that stands under the cluster lock."""
        return self.store_dir / "lock"

    @property
    def openers_key_path(self) -> Path:
        """The key of the marks of who opened private images."""
        return self.store_dir / "openers.key"

    @property
    def images_dir(self) -> Path:
        """The directory of all images."""
        return self.store_dir / "images"

    @property
    def references_dir(self) -> Path:
        """The directory of all resolved references."""
        return self.store_dir / "references"

    @property
    def layers_dir(self) -> Path:
        """The directory of all layer formats."""
        return self.store_dir / "layers"

    @property
    def staging_dir(self) -> Path:
        """Where images and layers are made, invisibly."""
        return self.store_dir / "staging"

    @property
    def acis_dir(self) -> Path:
        """Where it is remembered what App Container archives told."""
        return self.store_dir / "acis"

    @property
    def partial_dir(self) -> Path:
        """Where the beginnings of large blobs outlive a worker."""
        return self.store_dir / "partial"

    @property
    def trash_dir(self) -> Path:
        """Where images and layers wait for deletion, invisibly."""
        return self.store_dir / "trash"

    def image_dir(self, digest: str) -> Path:
        """Return the directory of one image."""
        return self.images_dir / digest

    def manifest_path(self, digest: str) -> Path:
        """Return the image's manifest, byte for byte."""
        return self.image_dir(digest) / "manifest.json"

    def config_path(self, digest: str) -> Path:
        """Return the image's configuration, byte for byte."""
        return self.image_dir(digest) / "config.json"

    def implied_dir(self, digest: str, *, layer_format: str) -> Path:
        """Return the lower directory that puts the attributes of unlisted directories right."""
        return self.image_dir(digest) / f"implied-{layer_format}"

    def refs_dir(self, digest: str) -> Path:
        """Return the directory whose entries keep the image."""
        return self.image_dir(digest) / "refs"

    def ref_path(self, digest: str, *, node: str, container_id: str, name: str) -> Path:
        """Return the entry by which one rootfs keeps the image."""
        return self.refs_dir(digest) / _hashed(node, container_id, name)

    def reference_path(self, reference: str, *, platform: str) -> Path:
        """Return the file that says what a reference resolved to."""
        return self.references_dir / _hashed(reference, platform)

    def merged_path(self, digest: str) -> Path:
        """Return the file that merges all layers of the image in EROFS format; its number grows with the encoding."""
        return self.image_dir(digest) / "merged-2.erofs"

    def layer_dir(self, diff_id: str, *, layer_format: str) -> Path:
        """Return the directory of one committed layer."""
        return self.layers_dir / layer_format / diff_id

    def layer_staging_dir(self, diff_id: str, *, layer_format: str) -> Path:
        """Return the directory in which the layer is made; its lock is beside it."""
        return self.staging_dir / _hashed("layer", layer_format, diff_id)


@dataclass(frozen=True, slots=True)
class RootfsPaths:
    """One rootfs of a container: what a backend may touch and nothing else.

    Attributes:
        rootfs_home: `rootfses/<name>`; exists before a backend is called.
    """

    rootfs_home: Path

    @property
    def rootfs_dir(self) -> Path:
        """The root filesystem itself."""
        return self.rootfs_home / "rootfs"

    @property
    def bundle_dir(self) -> Path:
        """The runtime bundle, if one was asked for: `rootfs` is in it."""
        return self.rootfs_home

    @property
    def volumes_dir(self) -> Path:
        """The directories that stand in the bundle for the image's volumes."""
        return self.bundle_dir / "volumes"

    @property
    def mount_points_dir(self) -> Path:
        """What lies lowest in a read-only rootfs with a bundle, so that a runtime finds what it mounts on."""
        return self.rootfs_home / "mount-points"

    @property
    def upper_dir(self) -> Path:
        """What the container wrote, for backends with an upper directory."""
        return self.rootfs_home / "upper"

    @property
    def work_dir(self) -> Path:
        """The kernel's scratch space beside the upper directory."""
        return self.rootfs_home / "work"


@dataclass(frozen=True, slots=True)
class WorkPaths:
    """Paths below WORK_DIR. Containers are given by the parts of their id, already validated."""

    work_dir: Path

    @property
    def node_lock_path(self) -> Path:
        """The flock under which a node recovers."""
        return self.work_dir / "node.lock"

    @property
    def recovery_lock_path(self) -> Path:
        """The flock under which a node recovers between its marks."""
        return self.work_dir / "recovery.lock"

    @property
    def worker_lock_path(self) -> Path:
        """The flock that the node's workers share while they are up."""
        return self.work_dir / "worker.lock"

    @property
    def epoch_path(self) -> Path:
        """The file that keeps the id of the epoch."""
        return self.work_dir / "epoch"

    @property
    def containers_dir(self) -> Path:
        """The directory of the outermost containers."""
        return self.work_dir / "containers"

    @property
    def trash_dir(self) -> Path:
        """Where destroyed containers wait for deletion."""
        return self.work_dir / "trash"

    @property
    def runs_dir(self) -> Path:
        """Where programs that run in the foreground have their bundles."""
        return self.work_dir / "runs"

    @property
    def images_dir(self) -> Path:
        """The directory of the images that are mounted."""
        return self.work_dir / "images"

    def image_dir(self, digest: str) -> Path:
        """Return what belongs to the mount of one image."""
        return self.images_dir / digest

    def image_lock_path(self, digest: str) -> Path:
        """Return the flock that orders an image's mounts and unmounts."""
        return self.images_dir / f"{digest}.lock"

    def image_mount_dir(self, digest: str) -> Path:
        """Return where the image is mounted."""
        return self.image_dir(digest) / "mount"

    def image_users_dir(self, digest: str) -> Path:
        """Return the directory whose entries keep the image mounted."""
        return self.image_dir(digest) / "users"

    def image_user_path(self, digest: str, *, user: str) -> Path:
        """Return the entry by which one user keeps the image mounted."""
        return self.image_users_dir(digest) / _hashed(user)

    def container_dir(self, parts: Sequence[str]) -> Path:
        """Return a container's directory, inside its parent's."""
        return self.containers_dir.joinpath("/containers/".join(parts))

    def nested_dir(self, parts: Sequence[str]) -> Path:
        """Return the directory of the containers nested in this one."""
        return self.container_dir(parts) / "containers"

    def container_lock_path(self, parts: Sequence[str]) -> Path:
        """Return the flock that orders a container's mounts and unmounts."""
        return self.container_dir(parts) / "lock"

    def record_path(self, parts: Sequence[str]) -> Path:
        """Return the container's record."""
        return self.container_dir(parts) / "record.json"

    def rootfses_dir(self, parts: Sequence[str]) -> Path:
        """Return the directory of a container's rootfses."""
        return self.container_dir(parts) / "rootfses"

    def rootfs_paths(self, parts: Sequence[str], *, name: str) -> RootfsPaths:
        """Return the paths of one rootfs."""
        return RootfsPaths(self.rootfses_dir(parts) / name)
