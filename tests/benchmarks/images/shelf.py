# SPDX-License-Identifier: Apache-2.0
"""A registry on loopback whose storage is the cache of the built images."""

import gzip
import hashlib
import json
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from typing_extensions import override

from tests.benchmarks.images.recipes import Recipe
from tests.support.images import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Blob, dump
from tests.support.registry_server import Registry, registry_server

_GZIP_LEVEL = 6
_CHUNK_BYTES = 1024 * 1024
_ENTRIES = "test.entries"
_TAR_BYTES = "test.tar_bytes"


@dataclass(frozen=True, kw_only=True)
class Published:
    """An image in the registry.

    Attributes:
        recipe: What it was made by.
        reference: `127.0.0.1:<port>/bench/<name>:<version>`.
        layers: Digests of the compressed layers, base first.
        diff_ids: Digests of the uncompressed ones.
        blob_bytes: All layers, compressed.
        tar_bytes: All layers, uncompressed.
        entries: Members of all tars.
    """

    recipe: Recipe
    reference: str
    layers: tuple[str, ...]
    diff_ids: tuple[str, ...]
    blob_bytes: int
    tar_bytes: int
    entries: int

    @override
    def __str__(self) -> str:
        size = f"{self.blob_bytes / 1e6:,.0f} MB of {self.tar_bytes / 1e6:,.0f} MB"
        return f"{self.recipe.name}: {len(self.layers)} layers, {self.entries:,} entries, {size} (gzip -{_GZIP_LEVEL})"


class Shelf:
    """Images, built when they are first asked for.

    Attributes:
        registry: Where they are.
    """

    def __init__(self, registry: Registry, console: Console) -> None:
        self.registry = registry
        self._console = console

    def get(self, recipe: Recipe) -> Published:
        """Return the image, from the cache if it is there."""
        repository, tag = f"bench/{recipe.name}", f"v{recipe.version}"
        if not self._has(repository, tag):
            with self._console.status(f"building image {recipe.name}"), tempfile.TemporaryDirectory() as directory:
                tars = recipe.write(Path(directory))
                self._publish(repository, tag, tars)
        return self._read(recipe, repository, tag)

    def warm(self, image: Published) -> None:
        """Read the layers once, so that whoever pulls them next finds them in the page cache."""
        for digest in image.layers:
            with self.registry.blob_path(digest).open("rb") as blob:
                while blob.read(_CHUNK_BYTES):
                    pass

    def _has(self, repository: str, tag: str) -> bool:
        tags = self.registry.storage_dir / "docker/registry/v2/repositories" / repository / "_manifests/tags"
        return (tags / tag / "current/link").exists()

    def _publish(self, repository: str, tag: str, tars: Sequence[Path]) -> None:
        with ThreadPoolExecutor() as threads:
            diff_ids = list(threads.map(_diff_id, tars))
            sizes = [tar.stat().st_size for tar in tars]
            entries = sum(threads.map(_count, tars))
            blobs = []
            for compressed in threads.map(_compress, tars):
                blob = Blob(compressed.read_bytes(), f"{OCI_LAYER}+gzip")
                self.registry.push_blob(repository, blob)
                blobs.append(blob.descriptor())
        rootfs = {"type": "layers", "diff_ids": diff_ids}
        config = Blob(dump({"os": "linux", "architecture": "amd64", "config": {}, "rootfs": rootfs}), OCI_CONFIG)
        self.registry.push_blob(repository, config)
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config.descriptor(),
            "layers": blobs,
            "annotations": {_ENTRIES: str(entries), _TAR_BYTES: str(sum(sizes))},
        }
        self.registry.push_manifest(repository, tag, Blob(dump(document), OCI_MANIFEST))

    def _read(self, recipe: Recipe, repository: str, tag: str) -> Published:
        accept = {"Accept": OCI_MANIFEST}
        answer = self.registry.request("GET", f"/v2/{repository}/manifests/{tag}", headers=accept)
        manifest = json.loads(answer.data)
        config = self.registry.request("GET", f"/v2/{repository}/blobs/{manifest['config']['digest']}")
        return Published(
            recipe=recipe,
            reference=f"{self.registry.host}/{repository}:{tag}",
            layers=tuple(layer["digest"] for layer in manifest["layers"]),
            diff_ids=tuple(json.loads(config.data)["rootfs"]["diff_ids"]),
            blob_bytes=sum(layer["size"] for layer in manifest["layers"]),
            tar_bytes=int(manifest["annotations"][_TAR_BYTES]),
            entries=int(manifest["annotations"][_ENTRIES]),
        )


def _diff_id(tar: Path) -> str:
    with tar.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


def _count(tar: Path) -> int:
    with tarfile.open(tar) as archive:
        return sum(1 for _ in archive)


def _compress(tar: Path) -> Path:
    """Compress as most registries' images are: zlib, level 6."""
    path = tar.with_suffix(".tar.gz")
    with tar.open("rb") as source, path.open("wb") as raw, gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as target:
        while chunk := source.read(_CHUNK_BYTES):
            target.write(chunk)
    return path


def default_image_dir() -> Path:
    """Return where images are kept unless the command line says otherwise."""
    return Path(tempfile.gettempdir()) / "provisioner-bench-images"


@contextmanager
def opened_shelf(image_dir: Path, console: Console) -> Iterator[Shelf]:
    """Run a registry over the cached images for the context's time."""
    image_dir.mkdir(parents=True, exist_ok=True)
    with registry_server(image_dir) as registry:
        yield Shelf(registry, console)
