# SPDX-License-Identifier: Apache-2.0
"""`Images`: manifests and configurations by digest, what references resolved to, and who needs which image.

A *ref* is a file in an image's `refs/`: one (node, container, name), or one pull under way. While its file is there
prune keeps the image and all its layers. Whoever is still working on what the ref stands for holds the file's flock
shared; a ref without a container's record and without a flock was left by a dead worker.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.errors import InvalidArgument, ProvisionerError, RecordCorrupt
from worker.linux import durable
from worker.linux.flock import locked, try_lock
from worker.oci.config import ImageConfig
from worker.oci.digest import Digest
from worker.oci.manifest import Manifest
from worker.oci.media_types import APPC_CONFIG
from worker.paths import StorePaths
from worker.store.resolved import ResolvedReference, read_reference
from worker.store.staging import staging


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image the store knows; its layers need not all be there.

    Attributes:
        digest: Of the manifest.
        manifest: The manifest, parsed.
        config: The configuration, parsed.
    """

    digest: Digest
    manifest: Manifest
    config: ImageConfig

    @property
    def layers(self) -> tuple[Digest, ...]:
        """DiffIDs, base first."""
        return self.config.diff_ids

    @property
    def docker_manifest(self) -> Mapping[str, Any] | None:
        """The image configuration; None for an Appc image."""
        return None if self._is_appc else self.config.document

    @property
    def appc_manifest(self) -> Mapping[str, Any] | None:
        """The Appc manifest; None for any other image."""
        manifest: Mapping[str, Any] | None = self.config.document["appc"]["manifest"] if self._is_appc else None
        return manifest

    @property
    def _is_appc(self) -> bool:
        return self.manifest.config.media_type == APPC_CONFIG


@dataclass(frozen=True, slots=True, kw_only=True)
class RefOwner:
    """Who needs an image: a rootfs (container and name) or a pull under way (no container)."""

    node: str
    container_id: str
    name: str


class Images:
    """The shelf of images."""

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths

    def get(self, digest: Digest) -> StoredImage | None:
        """Read an image, or None if the store does not know it.

        Raises:
            RecordCorrupt: What lies there does not parse, or is not what its name says.
        """
        text = str(digest)
        try:
            manifest = self._paths.manifest_path(text).read_bytes()
            config = self._paths.config_path(text).read_bytes()
        except FileNotFoundError:
            return None
        try:
            image = StoredImage(
                digest=digest,
                manifest=Manifest.parse(manifest, image=text),
                config=ImageConfig.parse(config, image=text),
            )
        except ProvisionerError as error:
            raise RecordCorrupt(path=str(self._paths.image_dir(text)), reason=str(error)) from error
        return image

    def put(self, digest: Digest, *, manifest: bytes, config: bytes) -> None:
        """Commit an image.

        Effect: on return the image is stored, not necessarily by this call; survives power loss.
        Locking: the caller holds the fence shared, and writes its ref before letting go of it.
        """
        target = self._paths.image_dir(str(digest))
        if target.exists():
            return
        with staging(self._paths.staging_dir / f"image-{digest.hex[:64]}") as directory:
            (directory / "refs").mkdir(mode=0o700)
            durable.write_new(directory / "manifest.json", manifest)
            durable.write_new(directory / "config.json", config)
            durable.sync_files(directory)
            if not target.exists():
                durable.rename(directory, target)

    def digests(self) -> Iterator[Digest]:
        """List all images."""
        for path in self._paths.images_dir.iterdir():
            with suppress(InvalidArgument):
                yield Digest.parse(path.name)

    # References.

    def resolved(self, reference: str, *, platform: str) -> ResolvedReference | None:
        """Return what the reference resolved to, if the store remembers."""
        try:
            return read_reference(self._paths.reference_path(reference, platform=platform))
        except (FileNotFoundError, RecordCorrupt):
            return None

    def remember(self, reference: str, *, platform: str, digest: Digest, opener: str | None) -> None:
        """Record what a reference resolved to just now, and for whom: what was known of it before counts no more.

        Effect: survives power loss; the last caller wins. Others who opened the image before ask the source once more,
            which may have been told since to give it to fewer.

        Args:
            reference: Normalised.
            platform: It was asked for.
            digest: Of the manifest.
            opener: The mark of whom the source gave it to, or None if it gives it to anybody.
        """
        openers = None if opener is None else (opener,)
        new = ResolvedReference(reference=reference, platform=platform, digest=digest, openers=openers)
        self._record(reference, platform=platform, change=lambda _: new)

    def admit(self, found: ResolvedReference, *, opener: str | None) -> None:
        """Record that the source gave the same image to somebody else too, unless the reference has moved on."""

        def admitted(current: ResolvedReference | None) -> ResolvedReference | None:
            if current is None or current.digest != found.digest:
                return current
            return current.also_for(opener)

        self._record(found.reference, platform=found.platform, change=admitted)

    def _record(
        self,
        reference: str,
        *,
        platform: str,
        change: Callable[[ResolvedReference | None], ResolvedReference | None],
    ) -> None:
        """Replace what is recorded by what `change` makes of it, if that is something else."""
        current = self.resolved(reference, platform=platform)
        if change(current) == current:
            return
        path = self._paths.reference_path(reference, platform=platform)
        with staging(self._paths.staging_dir / f"reference-{path.name}") as directory:
            # Looked at again, now that nobody else writes it.
            current = self.resolved(reference, platform=platform)
            new = change(current)
            if new is not None and new != current:
                # Made in staging, so that nothing is left among the references by a process killed here.
                durable.write_new(directory / "reference.json", json.dumps(new.to_document()).encode())
                durable.sync_files(directory)
                durable.rename(directory / "reference.json", path)

    def references(self) -> Iterator[tuple[Path, ResolvedReference]]:
        """List what references resolved to, with the file that says so; unreadable ones are passed over."""
        for path in self._paths.references_dir.iterdir():
            with suppress(RecordCorrupt, FileNotFoundError):
                yield path, read_reference(path)

    # Refs.

    @contextmanager
    def pin(self, digest: Digest, owner: RefOwner) -> Iterator[None]:
        """Write the ref and hold its flock shared while in the body; the ref itself stays afterwards.

        Effect: on entry the ref survives power loss.
        Locking: entered under the shared fence, so that prune sees either no use of the image or the ref. The body
            may outlive the fence.

        Raises:
            RecordCorrupt: The image is not in the store.
            StorageExhausted: The store is full.
        """
        path = self.ref_path(digest, owner)
        if not path.parent.exists():
            raise RecordCorrupt(path=str(path.parent.parent), reason="the image is not in the store")
        with ExitStack() as stack:
            with durable.reporting_full_disk(path):
                stack.enter_context(locked(path, exclusive=False))
            # Also one that a crash cut short: it would keep the image, but nobody would know for whom.
            if _read_owner(path) != owner:
                _write_in_place(path, owner)
            yield

    def keep(self, digest: Digest, owner: RefOwner) -> None:
        """Write the ref if it is missing, without holding it: for a rootfs that a record stands for."""
        with self.pin(digest, owner):
            pass

    def drop(self, digest: Digest, owner: RefOwner) -> None:
        """Remove the ref, held or not: whoever holds it works for something that is to be no more."""
        self.ref_path(digest, owner).unlink(missing_ok=True)

    def drop_unheld(self, digest: Digest, owner: RefOwner) -> bool:
        """Remove the ref unless somebody holds it; tell whether it is gone."""
        return _unlink_unheld(self.ref_path(digest, owner))

    def is_held(self, digest: Digest, owner: RefOwner) -> bool:
        """Tell whether somebody works on what the ref stands for."""
        try:
            held = try_lock(self.ref_path(digest, owner), exclusive=True)
        except FileNotFoundError:
            return False
        if held is None:
            return True
        held.release()
        return False

    def refs(self, digest: Digest) -> Iterator[tuple[Path, RefOwner | None]]:
        """List the image's refs; None stands for one cut short by a crash."""
        try:
            paths = sorted(self._paths.refs_dir(str(digest)).iterdir())
        except FileNotFoundError:
            return
        for path in paths:
            with suppress(FileNotFoundError):
                yield path, _read_owner(path)

    def drop_stale(self, path: Path, *, is_stale: Callable[[RefOwner | None], bool]) -> bool:
        """Remove a ref file unless somebody holds it or `is_stale` denies it; tell whether it is gone.

        `is_stale` is asked with the file locked: whoever wrote a record meanwhile held the file until then.
        """
        return _unlink_unheld(path, is_wanted=lambda: is_stale(_read_owner(path)))

    def release(self, node: str) -> int:
        """Drop the refs of a node that will not come back, but for those that somebody holds; return how many."""
        return sum(
            self.drop_unheld(digest, owner)
            for digest in self.digests()
            for _, owner in self.refs(digest)
            if owner is not None and owner.node == node
        )

    def ref_path(self, digest: Digest, owner: RefOwner) -> Path:
        """Return where the owner's ref to the image lies."""
        return self._paths.ref_path(str(digest), node=owner.node, container_id=owner.container_id, name=owner.name)


def _read_owner(path: Path) -> RefOwner | None:
    try:
        document = json.loads(path.read_bytes())
        return RefOwner(node=document["node"], container_id=document["container_id"], name=document["name"])
    except (ValueError, KeyError, TypeError):
        return None


def _write_in_place(path: Path, owner: RefOwner) -> None:
    """Fill the ref without replacing its file, which is locked by now; cut short, it still keeps the image."""
    document = {"node": owner.node, "container_id": owner.container_id, "name": owner.name}
    with durable.reporting_full_disk(path), path.open("r+b") as stream:
        stream.write(json.dumps(document).encode())
        stream.truncate()
        stream.flush()
        os.fsync(stream.fileno())
    durable.sync_directory(path.parent)


def _unlink_unheld(path: Path, *, is_wanted: Callable[[], bool] = lambda: True) -> bool:
    if not path.exists():
        return True
    try:
        held = try_lock(path, exclusive=True)
    except FileNotFoundError:  # Prune took the image away in between.
        return True
    if held is None:
        return False
    with held:
        if not is_wanted():
            return False
        path.unlink(missing_ok=True)
    return True
