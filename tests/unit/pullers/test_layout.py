# SPDX-License-Identifier: Apache-2.0
"""Images from OCI layouts: what is found, what is refused, and that nothing outside a layout is ever read."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.descriptors import open_below
from tests.support.images import DOCKER_INDEX, OCI_MANIFEST, Image, Index, build_image, build_index, dump, layer
from tests.support.layouts import REF_NAME, blob_path, write_layout
from tests.support.tar import File
from worker.errors import (
    AccessDenied,
    DigestMismatch,
    ImageNotFound,
    InvalidImage,
    PlatformNotFound,
    ProvisionerError,
    SizeMismatch,
)
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource
from worker.pullers.layout import LayoutPuller
from worker.settings import Settings

AMD64 = {"os": "linux", "architecture": "amd64"}
ARM64 = {"os": "linux", "architecture": "arm64"}


def image_of(text: str, *, platform: dict[str, str] = AMD64, style: Any = "oci", **manifest: object) -> Image:
    """Return an image of two layers that no other text gives."""
    layers = [layer(File("etc/motd", text.encode())), layer(File("top", text.encode()), compression="zstd")]
    return build_image(layers, platform=platform, style=style, manifest=manifest)


def opened(source: str, *, platform: str = "linux/amd64", **settings: Any) -> tuple[str, list[bytes]]:
    """Open the source; return the image's digest and its layers' blobs."""
    puller = LayoutPuller(Settings(**settings))
    with puller.open(ImageSource.parse(source), platform=Platform.parse(platform), credential=None) as image:
        blobs = []
        for descriptor in image.layers:
            with image.blob(descriptor) as chunks:
                blobs.append(b"".join(chunks))
        return str(image.digest), blobs


def test_the_only_image_needs_no_ref(tmp_path: Path) -> None:
    """A layout with one image gives it, manifest, configuration and blobs byte for byte."""
    image = image_of("one")
    write_layout(tmp_path, {"latest": image})

    puller = LayoutPuller(Settings())
    with puller.open(
        ImageSource.parse(f"oci:{tmp_path}"), platform=Platform("linux", "amd64"), credential=None
    ) as found:
        assert (found.manifest, found.config) == (image.manifest.content, image.config.content)
        assert [str(diff_id) for diff_id in found.image_config.diff_ids] == image.diff_ids

    assert opened(f"oci:{tmp_path}") == (image.digest, [blob.content for blob in image.layer_blobs])


def test_a_ref_chooses_among_several_images(tmp_path: Path) -> None:
    """Ref names, numbers and Docker's media types all lead to the right image."""
    first, second = image_of("one"), image_of("two", style="docker")
    write_layout(tmp_path, {"v1": first, "v2": second})

    assert opened(f"oci:{tmp_path}:v1")[0] == first.digest
    assert opened(f"oci:{tmp_path}:v2")[0] == second.digest
    assert opened(f"oci:{tmp_path}:@1")[0] == second.digest


def test_several_images_without_a_ref_are_listed(tmp_path: Path) -> None:
    """Guessing would give a different image after the next one is added: the error lists them."""
    write_layout(tmp_path, {"v1": image_of("one"), "v2": image_of("two")})

    with pytest.raises(ImageNotFound, match="there are several, choose one of: v1, v2"):
        opened(f"oci:{tmp_path}")


@pytest.mark.parametrize(("selector", "reason"), [("v3", "there are: v1"), ("@1", "there are 1, numbered from 0")])
def test_an_image_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, selector: str, reason: str) -> None:
    """An unknown ref is not found, and the error helps."""
    write_layout(tmp_path, {"v1": image_of("one")})

    with pytest.raises(ImageNotFound, match=reason):
        opened(f"oci:{tmp_path}:{selector}")


def test_the_platform_chooses_through_nested_indexes(tmp_path: Path) -> None:
    """An index inside an index is followed to the manifest of the platform."""
    images = [image_of("arm", platform=ARM64), image_of("amd")]
    write_layout(tmp_path, {"latest": build_index([build_index(images, style="docker")])})

    assert opened(f"oci:{tmp_path}")[0] == images[1].digest
    assert opened(f"oci:{tmp_path}", platform="linux/arm64")[0] == images[0].digest


def test_platforms_listed_in_the_layout_itself_are_one_image(tmp_path: Path) -> None:
    """Some tools write one entry per platform under one ref name, without an index of their own."""
    arm, amd = image_of("arm", platform=ARM64), image_of("amd")
    write_layout(tmp_path, {"latest": arm})
    write_layout(tmp_path, {"latest": amd})
    entries = [item.descriptor(annotations={REF_NAME: "latest"}) for item in (arm, amd)]
    (tmp_path / "index.json").write_bytes(dump({"schemaVersion": 2, "manifests": entries}))

    assert opened(f"oci:{tmp_path}")[0] == amd.digest
    assert opened(f"oci:{tmp_path}:latest", platform="linux/arm64")[0] == arm.digest


def test_an_image_for_another_platform_is_refused(tmp_path: Path) -> None:
    """Neither an entry nor a configuration for another processor is taken."""
    image = image_of("arm", platform=ARM64)
    write_layout(tmp_path / "said", {"latest": image})
    write_layout(tmp_path / "unsaid", {"latest": image})
    (tmp_path / "unsaid" / "index.json").write_bytes(
        dump({"schemaVersion": 2, "manifests": [image.manifest.descriptor()]})
    )

    for name in ("said", "unsaid"):
        with pytest.raises(PlatformNotFound, match="it has linux/arm64"):
            opened(f"oci:{tmp_path / name}")


def test_endless_indexes_are_refused(tmp_path: Path) -> None:
    """Each index inside another costs a read, so their depth is bounded."""
    item: Image | Index = image_of("deep")
    for _ in range(6):
        item = build_index([item])
    write_layout(tmp_path, {"latest": item})

    with pytest.raises(InvalidImage, match="indexes inside each other"):
        opened(f"oci:{tmp_path}")


def test_a_missing_directory_is_not_found(tmp_path: Path) -> None:
    """No layout at the path, or a file in its place: not found."""
    (tmp_path / "file").write_text("no layout")

    for name in ("missing", "file", "file/below"):
        with pytest.raises(ImageNotFound):
            opened(f"oci:{tmp_path / name}")


def remove(path: Path) -> None:
    """Remove a file."""
    path.unlink()


def change_a_byte(path: Path) -> None:
    """Keep the length, change the content."""
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])


def append(path: Path) -> None:
    """Make a file longer than its descriptor says."""
    path.write_bytes(path.read_bytes() + b" ")


def replace_by_fifo(path: Path) -> None:
    """Put something in its place that would block whoever opens it."""
    path.unlink()
    os.mkfifo(path)


def replace_by_directory(path: Path) -> None:
    """Put a directory in its place."""
    path.unlink()
    path.mkdir()


def replace_by_loop(path: Path) -> None:
    """Put a link to itself in its place."""
    path.unlink()
    path.symlink_to(path.name)


def link_outside(path: Path) -> None:
    """Move it out of the layout and put a link in its place: the content would even be right."""
    target = path.parents[2].with_name("outside")
    shutil.move(path, target)
    path.symlink_to(target)


DAMAGES: list[tuple[Callable[[Path], None], type[ProvisionerError]]] = [
    (remove, InvalidImage),
    (change_a_byte, DigestMismatch),
    (append, SizeMismatch),
    (replace_by_fifo, InvalidImage),
    (replace_by_directory, InvalidImage),
    (link_outside, InvalidImage),
]


@pytest.mark.parametrize("part", ["manifest", "config"])
@pytest.mark.parametrize(("damage", "expected"), DAMAGES)
def test_a_damaged_document_is_refused(
    tmp_path: Path, part: str, damage: Callable[[Path], None], expected: type[ProvisionerError]
) -> None:
    """Every document is verified before anything is believed of it, and never read from outside the layout."""
    image = image_of("one")
    layout_dir = write_layout(tmp_path / "layout", {"latest": image})
    damage(layout_dir / blob_path(getattr(image, part)))

    with pytest.raises(expected) as caught:
        opened(f"oci:{layout_dir}")

    assert type(caught.value) is expected
    assert str(layout_dir) in str(caught.value)


@pytest.mark.parametrize("damage", [remove, replace_by_fifo, replace_by_directory, link_outside, replace_by_loop])
def test_a_layer_that_is_no_file_of_the_layout_is_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """The image opens, since the node may have that layer already; streaming the blob is refused."""
    image = image_of("one")
    layout_dir = write_layout(tmp_path / "layout", {"latest": image})
    damage(layout_dir / blob_path(image.layer_blobs[0]))

    with pytest.raises(InvalidImage, match=str(layout_dir)):
        opened(f"oci:{layout_dir}")


def test_links_inside_the_layout_are_followed(tmp_path: Path) -> None:
    """Build systems make blobs links into a pool of their own inside the layout."""
    image = image_of("one")
    write_layout(tmp_path, {"latest": image})
    (tmp_path / "pool").mkdir()
    for blob in (image.config, *image.layer_blobs):
        path = tmp_path / blob_path(blob)
        shutil.move(path, tmp_path / "pool" / path.name)
        path.symlink_to(f"../../pool/{path.name}")

    assert opened(f"oci:{tmp_path}")[1] == [blob.content for blob in image.layer_blobs]


def test_a_layout_reached_through_a_link_is_read(tmp_path: Path) -> None:
    """The path itself may lead through links: `current -> release-7`."""
    image = image_of("one")
    write_layout(tmp_path / "release-7", {"latest": image})
    (tmp_path / "current").symlink_to("release-7")

    assert opened(f"oci:{tmp_path / 'current'}")[0] == image.digest


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("oci-layout", b'{"imageLayoutVersion":"2.0.0"}'),
        ("oci-layout", b"[]"),
        ("index.json", b'{"schemaVersion":2,"manifests":[],"manifests":[]}'),
        ("index.json", b'{"schemaVersion":2,"manifests":{}}'),
        (
            "index.json",
            b'{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:../../etc/passwd","size":1}]}',
        ),
    ],
)
def test_malformed_layout_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """An unknown version, ambiguous JSON or a digest that is a path: refused before a blob is opened."""
    write_layout(tmp_path, {"latest": image_of("one")})
    (tmp_path / name).write_bytes(content)

    with pytest.raises(InvalidImage):
        opened(f"oci:{tmp_path}")


def test_documents_are_bounded(tmp_path: Path) -> None:
    """A document beyond the limit is refused by its size, before it is read."""
    write_layout(tmp_path, {"latest": image_of("one")})
    os.truncate(tmp_path / "index.json", 2**40)

    with pytest.raises(InvalidImage, match=r"index\.json has 1099511627776 bytes, more than the 4194304 allowed"):
        opened(f"oci:{tmp_path}")


def test_too_many_layers_are_refused(tmp_path: Path) -> None:
    """The limit of the settings counts."""
    write_layout(tmp_path, {"latest": image_of("one")})

    with pytest.raises(InvalidImage, match="it has 2 layers, more than the 1 allowed"):
        opened(f"oci:{tmp_path}", max_layers=1)


def test_a_manifest_of_another_type_than_its_entry_says_is_refused(tmp_path: Path) -> None:
    """A document read as two things by two readers is refused (CVE-2021-41190)."""
    image = image_of("one")
    write_layout(tmp_path, {"latest": image})
    index = json.loads((tmp_path / "index.json").read_bytes())
    assert index["manifests"][0]["mediaType"] == OCI_MANIFEST
    index["manifests"][0]["mediaType"] = DOCKER_INDEX
    (tmp_path / "index.json").write_bytes(dump(index))

    with pytest.raises(InvalidImage, match="its source calls it"):
        opened(f"oci:{tmp_path}")


def test_a_directory_without_permission_is_denied(tmp_path: Path) -> None:
    """What the worker may not read is not said to be missing."""
    layout_dir = write_layout(tmp_path / "layout", {"latest": image_of("one")})
    layout_dir.chmod(0)

    with as_nobody(), pytest.raises(AccessDenied):
        opened(f"oci:{layout_dir}")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up root's rights, if this is root, for the context's time."""
    user = os.geteuid()
    if user:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_open_files_do_not_pile_up(tmp_path: Path) -> None:
    """Whether it ends well or not, opening leaves no descriptor behind."""
    layout_dir = write_layout(tmp_path / "layout", {"latest": image_of("one")})

    opened(f"oci:{layout_dir}")
    (layout_dir / "oci-layout").unlink()
    with pytest.raises(InvalidImage):
        opened(f"oci:{layout_dir}")

    assert open_below(tmp_path) == []
