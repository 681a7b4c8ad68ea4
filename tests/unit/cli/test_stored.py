# SPDX-License-Identifier: Apache-2.0
"""What the store of this machine holds, without changing it."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.images import Image, build_image, layer
from tests.support.layers_on_shelf import put_layer
from tests.support.tar import File
from worker.cli.stored import read_documents, read_store
from worker.errors import InvalidArgument, RecordCorrupt
from worker.oci.digest import Digest
from worker.store.images import RefOwner
from worker.store.store import Store

BASE = layer(File("base", b"base"))
IMAGE = build_image([BASE, layer(File("top", b"top"))])
OTHER = build_image([BASE, layer(File("other", b"other"))])
OWNER = RefOwner(node="n1", container_id="web-1", name="rootfs")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store.open(tmp_path / "store")


def put_image(store: Store, image: Image, reference: str) -> Digest:
    """Store manifest and configuration, and what led to them."""
    digest = Digest.parse(image.manifest.digest)
    store.images.put(digest, manifest=image.manifest.content, config=image.config.content)
    store.images.remember(reference, platform="linux/amd64", digest=digest, opener=None)
    return digest


def test_an_image_tells_its_names_its_layers_and_who_uses_it(store: Store) -> None:
    """All that `images` shows."""
    digest = put_image(store, IMAGE, "docker.io/library/app:1")
    for number, item in enumerate(IMAGE.layers, start=1):
        put_layer(store, Digest.parse(item.diff_id), disk_bytes=number * 1000)
    store.images.keep(digest, OWNER)

    (view,) = read_store(store.paths.store_dir).images

    assert view.digest == str(digest)
    assert [(each.reference, each.platform) for each in view.references] == [("docker.io/library/app:1", "linux/amd64")]
    assert view.layers == tuple(item.diff_id for item in IMAGE.layers)
    assert (view.missing, view.layer_formats, view.disk_bytes) == ((), ("directory",), 3000)
    assert view.owners == (OWNER,)


def test_layers_that_are_not_there_are_named(store: Store) -> None:
    """A pull that broke off leaves an image without some of its layers."""
    put_image(store, IMAGE, "docker.io/library/app:1")
    put_layer(store, Digest.parse(BASE.diff_id), disk_bytes=1000)

    (view,) = read_store(store.paths.store_dir).images

    assert view.missing == (IMAGE.layers[1].diff_id,)
    assert (view.layer_formats, view.disk_bytes) == ((), 1000)


def test_a_shared_layer_counts_once_in_the_sum(store: Store) -> None:
    """Both images show it, the disk holds it once."""
    put_image(store, IMAGE, "docker.io/library/app:1")
    put_image(store, OTHER, "docker.io/library/other:1")
    for item in {*IMAGE.layers, *OTHER.layers}:
        put_layer(store, Digest.parse(item.diff_id), disk_bytes=1000)

    view = read_store(store.paths.store_dir)

    assert [image.disk_bytes for image in view.images] == [2000, 2000]
    assert [image.exclusive_bytes for image in view.images] == [1000, 1000]
    assert (view.layers, view.disk_bytes) == (3, 3000)


def test_a_corrupt_image_is_shown_as_such_beside_the_others(store: Store) -> None:
    """One bad file hides nothing else."""
    digest = put_image(store, IMAGE, "docker.io/library/app:1")
    put_image(store, OTHER, "docker.io/library/other:1")
    store.paths.config_path(str(digest)).write_bytes(b"{")

    broken, sound = read_store(store.paths.store_dir).images

    assert str(store.paths.image_dir(str(digest))) in broken.error
    assert sound.error == ""


def test_images_are_found_by_name_by_digest_and_by_its_beginning(store: Store) -> None:
    """As people have them at hand."""
    digest = put_image(store, IMAGE, "docker.io/library/app:1")
    put_image(store, OTHER, "docker.io/library/other:1")
    view = read_store(store.paths.store_dir)

    expected = [image for image in view.images if image.digest == str(digest)]
    for name in (str(digest), str(digest)[:20], digest.hex, digest.hex[:12]):
        assert list(view.find(name, name)) == expected
    assert list(view.find("", "docker.io/library/app:1")) == expected
    assert view.find("", "docker.io/library/nothing:1") == ()


def test_reading_makes_no_store(tmp_path: Path) -> None:
    """Who looks at the wrong directory is told so, and it stays as it was."""
    with pytest.raises(InvalidArgument, match="there is no store"):
        read_store(tmp_path / "nothing")

    assert list(tmp_path.iterdir()) == []


def test_manifest_and_configuration_are_shown_as_published(store: Store) -> None:
    """Also the fields that the provisioner does not read."""
    digest = put_image(store, IMAGE, "docker.io/library/app:1")

    documents = read_documents(store.paths.store_dir, str(digest))

    assert documents["manifest"]["layers"][0]["digest"] == IMAGE.layer_blobs[0].digest
    assert documents["config"]["rootfs"]["diff_ids"] == [item.diff_id for item in IMAGE.layers]
    store.paths.manifest_path(str(digest)).write_bytes(b"?")
    with pytest.raises(RecordCorrupt):
        read_documents(store.paths.store_dir, str(digest))


def test_a_nameless_image_comes_last(store: Store) -> None:
    """People look for names."""
    digest = put_image(store, IMAGE, "docker.io/library/app:1")
    put_image(store, OTHER, "docker.io/library/app:1")

    images = read_store(store.paths.store_dir).images

    assert [bool(image.references) for image in images] == [True, False]
    assert images[1] == replace(images[1], digest=str(digest))
