# SPDX-License-Identifier: Apache-2.0
"""Writes built images where pullers look for them: OCI layouts and `docker save` archives."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.images import OCI_INDEX, Blob, Image, Index, dump, sha256
from tests.support.tar import Dir, Entry, File, tar_bytes

REF_NAME = "org.opencontainers.image.ref.name"


def layout_files(images: Mapping[str | None, Image | Index]) -> dict[str, bytes]:
    """Return the files of an OCI layout: path -> content. The key None names an image without a reference."""
    blobs = [blob for item in images.values() for blob in (*item.blobs, item.manifest)]
    files = {blob_path(blob): blob.content for blob in blobs}
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    files["index.json"] = dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": layout_manifests(images)})
    return files


def layout_manifests(images: Mapping[str | None, Image | Index]) -> list[dict[str, Any]]:
    """Return the descriptors in a layout's index.json."""
    return [
        item.descriptor(**({} if ref is None else {"annotations": {REF_NAME: ref}})) for ref, item in images.items()
    ]


def blob_path(blob: Blob) -> str:
    """Return where a layout keeps the blob."""
    return "blobs/" + blob.digest.replace(":", "/")


def write_layout(directory: Path, images: Mapping[str | None, Image | Index]) -> Path:
    """Write an OCI layout with `images` by reference; return `directory`."""
    for path, content in layout_files(images).items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return directory


def docker_manifest(*, tags: Sequence[str], layer_paths: Sequence[str], config: str) -> dict[str, Any]:
    """Return one entry of an archive's manifest.json."""
    return {"Config": config, "RepoTags": list(tags) or None, "Layers": list(layer_paths)}


def docker_archive_entries(images: Mapping[Sequence[str], Image]) -> list[Entry]:
    """Return the members of an archive as Docker wrote it before version 25: `<id>/layer.tar` and `<id>.json`.

    A layer that stands twice is a symbolic link the second time, as Docker writes it.
    """
    files: dict[str, Entry] = {}
    documents = []
    repositories: dict[str, dict[str, str]] = {}
    for tags, image in images.items():
        config = image.config.digest.removeprefix("sha256:") + ".json"
        files[config] = File(config, image.config.content)
        paths = []
        for number, item in enumerate(image.layers):
            layer_id = f"{number:02x}" + item.diff_id.removeprefix("sha256:")[2:]
            content = item.tar if item.compression == "none" else item.compressed
            members = [Dir(layer_id), File(f"{layer_id}/VERSION", b"1.0"), File(f"{layer_id}/layer.tar", content)]
            files |= {member.path: member for member in members}
            paths.append(f"{layer_id}/layer.tar")
        for tag in tags:
            repository, _, name = tag.rpartition(":")
            repositories.setdefault(repository, {})[name] = paths[-1].partition("/")[0]
        documents.append(docker_manifest(tags=tags, layer_paths=paths, config=config))
    return [
        *files.values(),
        File("manifest.json", json.dumps(documents).encode()),
        File("repositories", json.dumps(repositories).encode()),
    ]


def legacy_archive_entries(images: Mapping[str, Image], *, more: Mapping[str, Any] | None = None) -> list[Entry]:
    """Return the members of an archive as Docker wrote it before version 1.10, which named layers by random ids.

    Args:
        images: By one tag each; layers that several begin with are there once.
        more: Members for the top layers' documents, over those of the images' configurations.
    """
    members: dict[str, Entry] = {}
    repositories: dict[str, dict[str, str]] = {}
    for tag, image in images.items():
        parent, config = "", json.loads(image.config.content)
        for number, item in enumerate(image.layers):
            layer_id = sha256(f"{parent}{item.diff_id}".encode()).removeprefix("sha256:")
            document = {
                "id": layer_id,
                "created": config["created"],
                "container_config": {"Cmd": ["/bin/sh", str(number)]},
            }
            if parent:
                document["parent"] = parent
            if number == len(image.layers) - 1:
                document |= {**config, "docker_version": "1.9.1", "Size": len(item.tar), **(more or {})}
                document.pop("rootfs", None)
                document.pop("history", None)
            content = item.tar if item.compression == "none" else item.compressed
            files = {"VERSION": b"1.0", "json": dump(document), "layer.tar": content}
            members[layer_id] = Dir(layer_id)
            members |= {f"{layer_id}/{name}": File(f"{layer_id}/{name}", text) for name, text in files.items()}
            parent = layer_id
        repository, _, name = tag.rpartition(":")
        repositories.setdefault(repository, {})[name] = parent
    return [*members.values(), File("repositories", dump(repositories))]


def oci_archive_entries(images: Mapping[Sequence[str], Image | Index]) -> list[Entry]:
    """Return the members of an archive as Docker writes it since version 25: an OCI layout and a manifest.json."""
    files: dict[str, bytes] = {}
    manifests, documents = [], []
    for tags, item in images.items():
        files |= layout_files({None: item})
        for tag in tags or (None,):
            names = {} if tag is None else {"io.containerd.image.name": tag, REF_NAME: tag.rpartition(":")[2]}
            manifests.append(item.descriptor(annotations=names))
        if isinstance(item, Image):
            paths = [blob_path(blob) for blob in item.layer_blobs]
            documents.append(docker_manifest(tags=tags, layer_paths=paths, config=blob_path(item.config)))
    files["index.json"] = dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})
    files["manifest.json"] = dump(documents)
    return [Dir("blobs"), Dir("blobs/sha256"), *(File(path, content) for path, content in files.items())]


def write_archive(path: Path, entries: Sequence[Entry], *, is_gzipped: bool = False) -> Path:
    """Write `entries` as a tar file; return `path`."""
    content = tar_bytes(entries)
    path.write_bytes(gzip.compress(content, compresslevel=1, mtime=0) if is_gzipped else content)
    return path
