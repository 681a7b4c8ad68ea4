# SPDX-License-Identifier: Apache-2.0
"""pull: an image in the store, without a container."""

from pathlib import Path

import pytest

from tests.support.images import build_image, layer
from tests.support.layouts import write_layout
from tests.support.provisioners import files
from tests.support.tar import File
from worker.errors import DigestMismatch, ProvisionerError
from worker.provisioner import Elsewhere, Progress, Provisioner

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
