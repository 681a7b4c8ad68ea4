# SPDX-License-Identifier: Apache-2.0
"""The demonstration's image: real layers that a real unpacker and a real chroot accept."""

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from worker import demo_image


@pytest.fixture(scope="module")
def layout_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packed image."""
    directory = tmp_path_factory.mktemp("demo") / "layout"
    reference = demo_image.pack_python_image(directory, on_progress=lambda _done, _total: None)
    assert reference == f"oci:{directory}:demo"
    return directory


def read_json(layout_dir: Path, digest: str) -> Any:
    """Return a document of the layout."""
    return json.loads(blob_path(layout_dir, digest).read_bytes())


def blob_path(layout_dir: Path, digest: str) -> Path:
    """Return the file of a blob."""
    return layout_dir / "blobs" / digest.replace(":", "/")


def manifest_of(layout_dir: Path) -> Any:
    """Return the image's manifest."""
    index = json.loads((layout_dir / "index.json").read_bytes())
    return read_json(layout_dir, index["manifests"][0]["digest"])


def layer_names(layout_dir: Path) -> list[list[str]]:
    """Return the member names of every layer, base first."""
    blobs = [blob_path(layout_dir, item["digest"]).read_bytes() for item in manifest_of(layout_dir)["layers"]]
    return [tarfile.open(fileobj=io.BytesIO(blob)).getnames() for blob in blobs]


def test_every_blob_is_named_by_its_digest_and_nothing_else_is_left(layout_dir: Path) -> None:
    """The layout holds the blobs of the manifest, each under the hash of its content, and no staged file."""
    blobs = list((layout_dir / "blobs" / "sha256").iterdir())

    assert [hashlib.sha256(blob.read_bytes()).hexdigest() for blob in blobs] == [blob.name for blob in blobs]
    assert len(blobs) == 4 + 2
    assert [path.name for path in (layout_dir / "blobs").iterdir()] == ["sha256"]


def test_diff_ids_are_the_hashes_of_the_uncompressed_layers(layout_dir: Path) -> None:
    """The configuration's DiffIDs are what inflating each blob hashes to."""
    manifest = manifest_of(layout_dir)
    blobs = [gzip.decompress(blob_path(layout_dir, item["digest"]).read_bytes()) for item in manifest["layers"]]

    diff_ids = read_json(layout_dir, manifest["config"]["digest"])["rootfs"]["diff_ids"]

    assert diff_ids == [f"sha256:{hashlib.sha256(blob).hexdigest()}" for blob in blobs]


def test_the_last_layer_replaces_a_file_and_whites_one_out(layout_dir: Path) -> None:
    """Thousands of files in four layers, and between them what makes layers interesting."""
    base, python, packages, changes = layer_names(layout_dir)

    assert {"etc/motd", "etc/build-only", "bin/sh"} <= set(base)
    assert {"etc/motd", "etc/.wh.build-only"} <= set(changes)
    assert any(name.endswith("/celery/__init__.py") for name in packages)
    assert len(python) + len(packages) > 2000


def test_no_layer_names_a_path_twice(layout_dir: Path) -> None:
    """Image-spec forbids duplicates, and directories stand before what is in them."""
    for names in layer_names(layout_dir):
        positions = {name: number for number, name in enumerate(names)}
        assert len(positions) == len(names)
        assert all(positions[parent] < positions[name] for name in names if (parent := name.rpartition("/")[0]))


def test_progress_ends_at_the_number_of_members(tmp_path: Path) -> None:
    """Progress only grows, towards a total that stays the same, and arrives there."""
    seen: list[tuple[int, int]] = []

    demo_image.pack_python_image(tmp_path / "layout", on_progress=lambda done, total: seen.append((done, total)))

    assert seen == sorted(seen)
    assert len({total for _, total in seen}) == 1
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.root
@pytest.mark.peer
def test_python_runs_inside_the_unpacked_image(layout_dir: Path, tmp_path: Path) -> None:
    """A chroot into what umoci unpacks runs Python, its extension modules and third-party packages, and a shell."""
    bundle = tmp_path / "bundle"
    subprocess.run(["umoci", "unpack", "--image", f"{layout_dir}:demo", str(bundle)], check=True)
    program = "import ssl, ctypes, zoneinfo, celery, pydantic_core; print(open('/etc/motd').read())"

    python = in_chroot(bundle / "rootfs", "/usr/bin/python3", "-c", program)
    shell = in_chroot(bundle / "rootfs", "/bin/sh", "-c", "ls /etc && id -u")

    assert python.startswith(f"Python {sys.version.split()[0]}, packed")
    assert shell.split()[-1] == "0"
    assert "build-only" not in shell


def in_chroot(rootfs: Path, *command: str) -> str:
    """Return what the command prints inside `rootfs`."""
    words = ["chroot", str(rootfs), *command]
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
