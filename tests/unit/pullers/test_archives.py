# SPDX-License-Identifier: Apache-2.0
"""A directory of archives in the place of registries, as the ancestor's local puller had it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.images import Image, build_image, layer
from tests.support.layouts import docker_archive_entries, legacy_archive_entries, oci_archive_entries, write_archive
from tests.support.provisioners import provisioner
from tests.support.tar import File, tar_bytes
from tests.unit.registry.odd_server import Answer, OddServer, odd_server
from worker.errors import DigestMismatch, ImageNotFound, InvalidArgument
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource, Reference, Transport
from worker.pullers import make_pullers
from worker.pullers.archives import archive_names
from worker.settings import Settings

HEX = "0123456789abcdef" * 4


def image_of(text: str) -> Image:
    """Return an image that no other text gives."""
    return build_image([layer(File(text, text.encode()), compression="none")], style="docker")


@pytest.fixture
def server() -> Iterator[OddServer]:
    """A web server that answers as told."""
    with odd_server() as running:
        yield running


def digest_of(name: str, tmp_path: Path, *, archives: Path | str) -> str:
    """Return the digest of the one layer of the image of this name."""
    settings = Settings(store_dir=tmp_path / "store", archives=str(archives), archive_protocols=("http",))
    puller = make_pullers(settings)[Transport.DOCKER]
    source, platform = ImageSource.parse(name), Platform.parse("linux/amd64")
    with puller.open(source, platform=platform, credential=None) as image:
        return str(image.image_config.diff_ids[0])


@pytest.mark.parametrize(
    ("name", "files"),
    [
        (
            "abc",
            "abc:latest library/abc:latest docker.io/library/abc:latest abc library/abc docker.io/library/abc",
        ),
        ("library/x:1", "x:1 library/x:1 docker.io/library/x:1"),
        ("team/app:1", "team/app:1 docker.io/team/app:1"),
        ("library/team/app:1", "library/team/app:1 docker.io/library/team/app:1"),
        ("host:5000/app", "host:5000/app:latest host:5000/app"),
        (f"host:1/app@sha256:{HEX}", f"host:1/app@sha256:{HEX}"),
        (f"host:1/app:1@sha256:{HEX}", f"host:1/app@sha256:{HEX} host:1/app:1"),
    ],
)
def test_a_name_leads_to_files_in_this_order(name: str, files: str) -> None:
    """The digest before the tag, the shortest spelling first, no tag for latest only."""
    assert archive_names(Reference.parse(name)) == tuple(f"{file}.tar" for file in files.split())


@pytest.mark.parametrize("is_legacy", [False, True])
def test_the_ancestors_archives_are_found(tmp_path: Path, is_legacy: bool) -> None:
    """`abc.tar`, a tag in the file's name, a slash as a directory; whichever Docker wrote them."""
    archives = tmp_path / "archives"
    (archives / "team").mkdir(parents=True)
    for path, tag in {"abc.tar": "abc:latest", "team/app:1.tar": "team/app:1", "x:2.tar": "library/x:2"}.items():
        image = image_of(tag)
        entries = legacy_archive_entries({tag: image}) if is_legacy else docker_archive_entries({(tag,): image})
        write_archive(archives / path, entries)

    for name, tag in {"abc": "abc:latest", "docker.io/team/app:1": "team/app:1", "x:2": "library/x:2"}.items():
        assert digest_of(name, tmp_path, archives=archives) == image_of(tag).diff_ids[0]
    with pytest.raises(ImageNotFound, match=rf"there is none of {archives}/y:1\.tar, .*/docker\.io/library/y:1\.tar"):
        digest_of("y:1", tmp_path, archives=archives)


def test_the_first_file_is_taken_and_no_other(tmp_path: Path) -> None:
    """An archive that lacks its image is told, and not made up for by the next."""
    write_archive(tmp_path / "abc:latest.tar", docker_archive_entries({("other:1",): image_of("other")}))
    write_archive(tmp_path / "abc.tar", docker_archive_entries({("abc:latest",): image_of("abc")}))

    with pytest.raises(ImageNotFound, match="there are: other:1"):
        digest_of("abc", tmp_path, archives=tmp_path)


def test_a_digest_must_be_the_manifests(tmp_path: Path) -> None:
    """A file's name proves nothing."""
    image = image_of("pinned")
    name = f"host/app@{image.digest}"
    (tmp_path / "host").mkdir()
    write_archive(tmp_path / "host" / f"app@{image.digest}.tar", oci_archive_entries({("host/app:1",): image}))
    write_archive(tmp_path / "host" / "app:2.tar", oci_archive_entries({("host/app:2",): image_of("other")}))

    assert digest_of(name, tmp_path, archives=tmp_path) == image.diff_ids[0]
    with pytest.raises(DigestMismatch, match=image_of("other").digest):
        digest_of(f"host/app:2@sha256:{HEX}", tmp_path, archives=tmp_path)


def test_the_directory_may_be_a_url(server: OddServer, tmp_path: Path) -> None:
    """Each file is asked for in turn; what is no answer to that is not taken for "not there"."""
    archive = tar_bytes(docker_archive_entries({("abc:latest",): image_of("abc")}))
    server.on("/images/library/abc.tar", Answer(body=archive))

    assert digest_of("abc", tmp_path, archives=f"{server.url}/images/") == image_of("abc").diff_ids[0]
    assert [asked.path for asked in server.asked][-2:] == ["/images/abc.tar", "/images/library/abc.tar"]
    with pytest.raises(ImageNotFound, match="there is no"):
        digest_of("abd", tmp_path, archives=f"{server.url}/images")


@pytest.mark.parametrize("archives", ["relative", "./a", "s3://bucket/images"])
def test_a_setting_that_cannot_be_used_is_refused_at_start(tmp_path: Path, archives: str) -> None:
    """A protocol that is not allowed, or a path that would depend on where the worker was started."""
    with pytest.raises(InvalidArgument, match="PROVISIONER_ARCHIVES"):
        digest_of("abc", tmp_path, archives=archives)


@pytest.mark.root
@pytest.mark.redis
def test_a_node_provisions_and_repairs_from_archives_alone(tmp_path: Path, redis_url: str) -> None:
    """No registry is asked; a damaged layer comes from the archive again; the v1 image manifest is in the answer."""
    image = image_of("abc")
    archives = tmp_path / "archives"
    archives.mkdir()
    write_archive(archives / "abc.tar", legacy_archive_entries({"abc:latest": image}, more={"author": "a@b"}))

    with provisioner(tmp_path, redis_url, archives=str(archives), layer_format="directory") as node:
        info = node.provision({"container_id": "c1", "image": "abc"})
        assert isinstance(info, dict)
        assert (Path(info["rootfs"]) / "abc").read_bytes() == b"abc"
        assert info["docker_manifest"]["author"] == "a@b"
        assert info["docker_manifest"]["container_config"]
        node.destroy({"container_id": "c1"})
        ((layer_format, diff_id),) = node.node.store.layers.committed()
        (node.node.store.layers.directory(diff_id, layer_format=layer_format) / "layer.json").write_bytes(b"{}")

        assert node.provision({"container_id": "c2", "image": "abc"})
