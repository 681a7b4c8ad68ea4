# SPDX-License-Identifier: Apache-2.0
"""Reading an image's files: from several threads, and with every system error said in our words."""

import errno
import os
import threading
from pathlib import Path

import pytest

from tests.support.images import build_image, layer
from tests.support.layouts import docker_archive_entries, write_archive, write_layout
from tests.support.tar import File
from worker.errors import AccessDenied, ImageNotFound, ProvisionerError, RegistryUnavailable
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource
from worker.pullers import make_pullers
from worker.pullers.content import Extent, reading
from worker.settings import MIB, Settings

# Layers larger than a chunk, each of one byte that is its own.
IMAGE = build_image([layer(File("f", bytes([number]) * (3 * MIB + 7)), compression="none") for number in range(8)])


@pytest.mark.parametrize("transport", ["oci", "docker-archive"])
def test_blobs_may_be_read_by_several_threads_at_once(tmp_path: Path, transport: str) -> None:
    """All layers at once through one open image: no thread moves another's place in the file."""
    write_layout(tmp_path / "oci", {"latest": IMAGE})
    write_archive(tmp_path / "docker-archive", docker_archive_entries({("demo:1",): IMAGE}))
    source = ImageSource.parse(f"{transport}:{tmp_path / transport}")
    puller = make_pullers(Settings(store_dir=tmp_path / "store"))[source.transport]
    found: dict[int, bytes] = {}

    with puller.open(source, platform=Platform("linux", "amd64"), credential=None) as image:

        def read(number: int) -> None:
            with image.blob(image.layers[number]) as chunks:
                found[number] = b"".join(chunks)

        threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert [found[number] for number in range(8)] == [item.tar for item in IMAGE.layers]


def test_chunks_are_bounded_and_whole(tmp_path: Path) -> None:
    """No chunk is more than a mebibyte, and together they are the extent and nothing else."""
    path = tmp_path / "file"
    path.write_bytes(b"before" + b"x" * (2 * MIB + 1) + b"after")

    with path.open("rb") as file:
        chunks = list(Extent(file.fileno(), 6, 2 * MIB + 1).chunks())

    assert [len(chunk) for chunk in chunks] == [MIB, MIB, 1]
    assert set(b"".join(chunks)) == {ord("x")}


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOENT, ImageNotFound),
        (errno.ENOTDIR, ImageNotFound),
        (errno.ELOOP, ImageNotFound),
        (errno.EACCES, AccessDenied),
        (errno.EPERM, AccessDenied),
        (errno.EIO, RegistryUnavailable),
        (errno.ESTALE, RegistryUnavailable),
    ],
)
def test_system_errors_are_translated(number: int, expected: type[ProvisionerError]) -> None:
    """What is not there and what is forbidden are permanent; what failed, as on NFS, may work again."""
    with pytest.raises(expected, match=os.strerror(number)) as caught, reading("oci:/layout"):
        raise OSError(number, os.strerror(number), "/layout/index.json")

    assert type(caught.value) is expected
    assert "oci:/layout" in str(caught.value)
