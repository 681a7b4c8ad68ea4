# SPDX-License-Identifier: Apache-2.0
"""pull: an image in the store, without a container."""

from pathlib import Path

import pytest

from tests.support.images import build_image, layer
from tests.support.layouts import write_layout
from tests.support.provisioners import files, provisioner
from tests.support.tar import Entry, File
from worker.errors import DigestMismatch, LayerLimitExceeded, ProvisionerError
from worker.provisioner import Elsewhere, Progress, Provisioner
from worker.settings import MIB

pytestmark = [pytest.mark.root, pytest.mark.redis]


def test_a_pull_reports_progress_and_what_it_fetched(node: Provisioner, image: str) -> None:
    """The last report says that all is done; a second pull fetches nothing."""
    seen: list[Progress] = []

    first = node.pull({"image": image}, on_progress=seen.append)
    second = node.pull({"image": image})

    assert not isinstance(first, Elsewhere)
    assert (seen[-1].layers_done, seen[-1].layers_total) == (2, 2)
    assert seen[-1].bytes_fetched == seen[-1].bytes_total == first["bytes_fetched"]
    assert second == {**first, "bytes_fetched": 0}


def test_nothing_keeps_a_pulled_image(node: Provisioner, image: str) -> None:
    """Its pin goes with the pull."""
    node.pull({"image": image})

    assert [list(node.node.store.images.refs(digest)) for digest in node.node.store.images.digests()] == [[]]


@pytest.mark.parametrize("which", [0, 1])
def test_a_corrupt_layer_is_refused_and_leaves_no_layer(node: Provisioner, tmp_path: Path, which: int) -> None:
    """The error says which; nothing is committed of it and nothing staged."""
    layers = [layer(File("a", b"x" * 1000)), layer(File("b", b"y" * 1000))]
    image = build_image(layers)
    write_layout(tmp_path / "layout", {"latest": image})
    blob = tmp_path / "layout" / "blobs" / "sha256" / layers[which].blob("oci").digest.removeprefix("sha256:")
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 0xFF
    blob.write_bytes(bytes(content))

    with pytest.raises(ProvisionerError) as caught:
        node.pull({"image": f"oci:{tmp_path / 'layout'}:latest"})

    assert isinstance(caught.value, DigestMismatch) or "layer" in str(caught.value)
    assert layers[which].diff_id not in {str(diff_id) for _, diff_id in node.node.store.layers.committed()}
    assert files(node.node.store.paths.staging_dir) == []


def _files(count: int, *, prefix: str = "") -> list[Entry]:
    return [File(f"{prefix}{number}", b"x") for number in range(count)]


def test_layers_made_at_a_time_share_the_memory_for_one(tmp_path: Path, redis_url: str) -> None:
    """Whatever of the image is there already, so that asking again gives the same answer."""
    large, others = _files(1500), [layer(File("a")), layer(File("b"))]
    write_layout(tmp_path / "alone", {"latest": build_image([layer(*large)])})
    write_layout(tmp_path / "among", {"latest": build_image([layer(*large, File("c")), *others])})

    with provisioner(tmp_path, redis_url, layer_format="erofs", max_index_bytes=MIB, parallel_layers=3) as node:
        node.pull({"image": f"oci:{tmp_path}/alone:latest"})

        for _ in range(2):
            with pytest.raises(LayerLimitExceeded, match=f"bytes of metadata of {MIB // 3}"):
                node.pull({"image": f"oci:{tmp_path}/among:latest"})


def test_what_all_layers_take_together_is_limited(tmp_path: Path, redis_url: str) -> None:
    """What one layer replaces of another does not count, and of what is refused nothing is left."""
    adding = [layer(*_files(600, prefix=f"{number}-")) for number in range(4)]
    replacing = [layer(*_files(600), File(f"layer-{number}")) for number in range(4)]
    write_layout(tmp_path / "adding", {"latest": build_image(adding)})
    write_layout(tmp_path / "replacing", {"latest": build_image(replacing)})

    with provisioner(tmp_path, redis_url, layer_format="erofs", max_index_bytes=MIB) as node:
        node.provision({"container_id": "c1", "image": f"oci:{tmp_path}/replacing:latest"})

        with pytest.raises(LayerLimitExceeded, match=f"those of the layers below it, of {MIB}"):
            node.provision({"container_id": "c2", "image": f"oci:{tmp_path}/adding:latest"})

        assert not node.node.work.container_dir(("c2",)).exists()
