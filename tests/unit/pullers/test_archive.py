# SPDX-License-Identifier: Apache-2.0
"""Images from `docker save` archives, old form and new, compressed or not, whole or damaged."""

import gzip
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.support.images import Compression, Image, build_image, build_index, dump, layer
from tests.support.layouts import docker_archive_entries, oci_archive_entries, write_archive
from tests.support.tar import CharDevice, Entry, File, Hardlink, Symlink, tar_bytes
from worker.errors import DigestMismatch, ImageNotFound, InvalidImage, PlatformNotFound
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource
from worker.pullers.archive import ArchivePuller
from worker.settings import Settings

AMD64 = {"os": "linux", "architecture": "amd64"}
ARM64 = {"os": "linux", "architecture": "arm64"}


def image_of(text: str, *, compression: Compression = "none", platform: dict[str, str] = AMD64) -> Image:
    """Return an image of two layers that no other text gives."""
    layers = [layer(File(name, text.encode()), compression=compression) for name in ("base", "top")]
    return build_image(layers, platform=platform, style="docker")


class Opened:
    """What an archive gave, kept after it was closed."""

    def __init__(self, source: str, spool_dir: Path, *, platform: str = "linux/amd64", **settings: Any) -> None:
        puller = ArchivePuller(Settings(**settings), spool_dir=spool_dir)
        with puller.open(ImageSource.parse(source), platform=Platform.parse(platform), credential=None) as image:
            self.digest = str(image.digest)
            self.manifest, self.config = image.manifest, image.config
            self.diff_ids = [str(diff_id) for diff_id in image.image_config.diff_ids]
            self.layers = [(item.media_type, str(item.digest), item.size_bytes) for item in image.layers]
            self.blobs = []
            for descriptor in image.layers:
                with image.blob(descriptor) as chunks:
                    self.blobs.append(b"".join(chunks))


@pytest.fixture
def spool_dir(tmp_path: Path) -> Path:
    """A directory that is made when it is needed, and empty after every test that looks."""
    return tmp_path / "store" / "staging"


def test_the_old_form_gives_configuration_and_layers_byte_for_byte(tmp_path: Path, spool_dir: Path) -> None:
    """Layers that are not compressed are named by their DiffIDs."""
    image = image_of("one")
    path = write_archive(tmp_path / "image.tar", docker_archive_entries({("demo:1",): image}))

    found = Opened(f"docker-archive:{path}", spool_dir)

    assert found.config == image.config.content
    assert found.blobs == [item.tar for item in image.layers]
    assert [digest for _, digest, _ in found.layers] == image.diff_ids == found.diff_ids
    assert json.loads(found.manifest)["layers"][0] == {
        "digest": image.diff_ids[0],
        "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "size": len(image.layers[0].tar),
    }


def test_the_made_up_manifest_is_always_the_same(tmp_path: Path, spool_dir: Path) -> None:
    """The digest depends on the image alone, not on order or compression of the archive, nor on our version."""
    image = image_of("one")
    entries = docker_archive_entries({("demo:1",): image})
    first = write_archive(tmp_path / "first.tar", entries)
    second = write_archive(tmp_path / "second.tar.gz", list(reversed(entries)), is_gzipped=True)

    digests = {Opened(f"docker-archive:{path}", spool_dir).digest for path in (first, second)}

    assert digests == {"sha256:6ab76aeab371115189a7a39a81c0462537a5406fdecce3764b5818fc22c76027"}


def test_the_new_form_is_read_as_the_layout_it_is(tmp_path: Path, spool_dir: Path) -> None:
    """Docker 25 and later write manifests of their own, whose digests are the registry's."""
    image = image_of("one", compression="gzip")
    path = write_archive(tmp_path / "image.tar", oci_archive_entries({("demo:1",): image}))

    for source in (f"docker-archive:{path}", f"docker-archive:{path}:demo:1", f"docker-archive:{path}:@0"):
        found = Opened(source, spool_dir)
        assert found.digest == image.digest
        assert found.blobs == [item.content for item in image.layer_blobs]


@pytest.mark.parametrize(("compression", "suffix"), [("gzip", "+gzip"), ("zstd", "+zstd")])
def test_compressed_layers_of_the_old_form_get_digests_of_their_own(
    tmp_path: Path, spool_dir: Path, compression: Compression, suffix: str
) -> None:
    """The archive does not name them, so they are hashed."""
    image = image_of("one", compression=compression)
    path = write_archive(tmp_path / "image.tar", docker_archive_entries({("demo:1",): image}))

    found = Opened(f"docker-archive:{path}", spool_dir)

    media_type = f"application/vnd.oci.image.layer.v1.tar{suffix}"
    assert found.layers == [(media_type, blob.digest, len(blob.content)) for blob in image.layer_blobs]
    assert found.blobs == [blob.content for blob in image.layer_blobs]


@pytest.mark.parametrize("compress", [lambda tar: gzip.compress(tar, 1), zstandard.ZstdCompressor().compress])
def test_a_compressed_archive_is_inflated_aside_and_nothing_is_left(
    tmp_path: Path, spool_dir: Path, compress: Any
) -> None:
    """Random access needs the plain archive; its file has no name even while it is used."""
    image = image_of("one")
    path = tmp_path / "image.tar.compressed"
    path.write_bytes(compress(tar_bytes(docker_archive_entries({("demo:1",): image}))))

    found = Opened(f"docker-archive:{path}", spool_dir)

    assert found.blobs == [item.tar for item in image.layers]
    assert list(spool_dir.iterdir()) == []


def test_a_compressed_archive_is_bounded(tmp_path: Path, spool_dir: Path) -> None:
    """A few bytes must not fill the disk: the limit cuts what they inflate to."""
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(bytes(4 * 1024 * 1024)))

    with pytest.raises(InvalidImage, match="more than the 1048576 bytes allowed"):
        Opened(f"docker-archive:{path}", spool_dir, max_layer_bytes=1024 * 1024)

    assert list(spool_dir.iterdir()) == []


@pytest.mark.parametrize("entries_of", [docker_archive_entries, oci_archive_entries])
def test_a_name_chooses_among_several_images(tmp_path: Path, spool_dir: Path, entries_of: Any) -> None:
    """Names are compared as what they mean: `demo:1` is `docker.io/library/demo:1`."""
    images = [image_of("one"), image_of("two")]
    named: dict[Sequence[str], Image] = {("demo:1", "demo:latest"): images[0], ("example.org/team/demo:2",): images[1]}
    path = write_archive(tmp_path / "image.tar", entries_of(named))

    choices = {"demo": 0, "demo:1": 0, "docker.io/library/demo:1": 0, "example.org/team/demo:2": 1}
    for name, number in choices.items():
        assert Opened(f"docker-archive:{path}:{name}", spool_dir).diff_ids == images[number].diff_ids
    with pytest.raises(ImageNotFound, match="there are several, choose one of"):
        Opened(f"docker-archive:{path}", spool_dir)
    with pytest.raises(ImageNotFound, match=r"there are: .*demo:1"):
        Opened(f"docker-archive:{path}:demo:3", spool_dir)
    with pytest.raises(ImageNotFound, match="numbered from 0"):
        Opened(f"docker-archive:{path}:@7", spool_dir)


def test_several_images_without_names_are_chosen_by_number(tmp_path: Path, spool_dir: Path) -> None:
    """Images saved by id have no names."""
    images = [image_of("one"), image_of("two")]
    entries = docker_archive_entries({("a:1",): images[0], ("b:1",): images[1]})
    entries = rewritten(
        entries, "manifest.json", lambda text: text.replace('["a:1"]', "null").replace('["b:1"]', "null")
    )
    path = write_archive(tmp_path / "image.tar", entries)

    assert Opened(f"docker-archive:{path}:@1", spool_dir).diff_ids == images[1].diff_ids
    with pytest.raises(ImageNotFound, match="choose by"):
        Opened(f"docker-archive:{path}", spool_dir)


def rewritten(entries: Sequence[Entry], path: str, rewrite: Any) -> list[Entry]:
    """Return the entries with one file's text rewritten."""
    return [File(path, rewrite(e.content.decode()).encode()) if e.path == path else e for e in entries]


@pytest.mark.parametrize(
    "link", [lambda path: Symlink("z/layer.tar", f"../{path}"), lambda path: Hardlink("z/layer.tar", path)]
)
def test_a_layer_may_be_a_link_to_another(tmp_path: Path, spool_dir: Path, link: Any) -> None:
    """Docker writes a layer once, and links to it wherever else it stands."""
    image = image_of("one")
    entries = docker_archive_entries({("demo:1",): image})
    layer_path = next(entry.path for entry in entries if entry.path.endswith("layer.tar"))
    entries = rewritten(entries, "manifest.json", lambda text: text.replace(layer_path, "z/layer.tar"))
    path = write_archive(tmp_path / "image.tar", [*entries, link(layer_path)])

    assert Opened(f"docker-archive:{path}", spool_dir).blobs == [item.tar for item in image.layers]


@pytest.mark.parametrize(
    "link",
    [
        Symlink("z/layer.tar", "layer.tar"),
        Symlink("z/layer.tar", "/etc/passwd"),
        Symlink("z/layer.tar", "../../../../etc/passwd"),
        Hardlink("z/layer.tar", "missing"),
        CharDevice("z/layer.tar", 1, 5),
        File("elsewhere"),
    ],
)
def test_a_layer_that_leads_nowhere_is_refused(tmp_path: Path, spool_dir: Path, link: Entry) -> None:
    """Links are looked up among the members and nowhere else; loops end."""
    image = image_of("one")
    entries = docker_archive_entries({("demo:1",): image})
    layer_path = next(entry.path for entry in entries if entry.path.endswith("layer.tar"))
    entries = rewritten(entries, "manifest.json", lambda text: text.replace(layer_path, "z/layer.tar"))
    path = write_archive(tmp_path / "image.tar", [*entries, link])

    with pytest.raises(InvalidImage, match=r"it has no z/layer\.tar"):
        Opened(f"docker-archive:{path}", spool_dir)


def test_a_configuration_must_hash_to_its_name(tmp_path: Path, spool_dir: Path) -> None:
    """A configuration changed inside an archive is noticed although no manifest names its digest."""
    image = image_of("one")
    name = image.config.digest.removeprefix("sha256:") + ".json"
    entries = rewritten(
        docker_archive_entries({("demo:1",): image}), name, lambda text: text.replace("/bin/sh", "/bin/ed")
    )
    path = write_archive(tmp_path / "image.tar", entries)

    with pytest.raises(DigestMismatch, match=name):
        Opened(f"docker-archive:{path}", spool_dir)


def test_an_archive_for_another_platform_is_refused(tmp_path: Path, spool_dir: Path) -> None:
    """The configuration says what the image runs on."""
    path = write_archive(tmp_path / "i.tar", docker_archive_entries({("demo:1",): image_of("one", platform=ARM64)}))

    with pytest.raises(PlatformNotFound, match="it has linux/arm64"):
        Opened(f"docker-archive:{path}", spool_dir)
    assert Opened(f"docker-archive:{path}", spool_dir, platform="linux/arm64").diff_ids


def test_an_index_in_an_archive_is_followed(tmp_path: Path, spool_dir: Path) -> None:
    """Docker's containerd store saves an image with its index."""
    image = image_of("one", compression="gzip")
    index = build_index([image_of("arm", platform=ARM64), image])
    path = write_archive(tmp_path / "image.tar", oci_archive_entries({("demo:1",): index}))

    assert Opened(f"docker-archive:{path}:demo:1", spool_dir).digest == image.digest


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([File("readme")], "neither oci-layout nor manifest.json nor repositories"),
        ([File("manifest.json", b"{}")], "not a JSON array"),
        ([File("manifest.json", b"[]")], "there are: none"),
        ([File("manifest.json", b'[{"Config":1}]')], "names no Config"),
        ([File("manifest.json", b'[{"Config":"c","Layers":[1]}]')], "are not strings"),
        ([File("manifest.json", b'[{"Config":"c","Config":"d"}]')], "not strict JSON"),
        ([File("manifest.json", b'[{"Config":"missing"}]')], "it has no missing"),
        ([File("manifest.json", b"[]"), File("./manifest.json", b"[]")], "two files of this name"),
        ([File("manifest.json", bytes(5 * 1024 * 1024))], "more than the 4194304 allowed"),
    ],
)
def test_what_is_no_archive_of_images_is_refused(
    tmp_path: Path, spool_dir: Path, entries: list[Entry], reason: str
) -> None:
    """Each is refused for its own reason, with the archive's name."""
    path = write_archive(tmp_path / "image.tar", entries)

    with pytest.raises((InvalidImage, ImageNotFound), match=reason) as caught:
        Opened(f"docker-archive:{path}", spool_dir)

    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"text", bytes(range(256)) * 2, b"\x1f\x8b\x08garbage", b"BZh91AY&SY"])
def test_a_file_that_is_no_tar_is_refused(tmp_path: Path, spool_dir: Path, content: bytes) -> None:
    """Empty, random or compressed by what we cannot read."""
    path = tmp_path / "image.tar"
    path.write_bytes(content)

    with pytest.raises(InvalidImage):
        Opened(f"docker-archive:{path}", spool_dir)


def test_an_archive_cut_off_anywhere_is_refused(tmp_path: Path, spool_dir: Path) -> None:
    """A copy that broke off is never taken for the whole."""
    image = image_of("one")
    content = tar_bytes(docker_archive_entries({("demo:1",): image}))
    path = tmp_path / "image.tar"

    for end in range(256, len(content) - 1024 - 512, 512):
        path.write_bytes(content[:end])
        with pytest.raises((InvalidImage, ImageNotFound)):
            Opened(f"docker-archive:{path}", spool_dir)


def test_layer_counts_must_agree(tmp_path: Path, spool_dir: Path) -> None:
    """More layers than DiffIDs would leave some unverified."""
    image = image_of("one")
    entries = docker_archive_entries({("demo:1",): image})
    documents = json.loads(next(entry.content for entry in entries if entry.path == "manifest.json"))
    documents[0]["Layers"].append(documents[0]["Layers"][0])
    entries = rewritten(entries, "manifest.json", lambda _text: dump(documents).decode())
    path = write_archive(tmp_path / "image.tar", entries)

    with pytest.raises(InvalidImage, match="it has 3 layers, its configuration 2"):
        Opened(f"docker-archive:{path}", spool_dir)


def test_a_missing_archive_is_not_found(tmp_path: Path, spool_dir: Path) -> None:
    """No file, or a directory in its place."""
    with pytest.raises(ImageNotFound, match="No such file"):
        Opened(f"docker-archive:{tmp_path / 'missing.tar'}", spool_dir)
    with pytest.raises(InvalidImage, match="not a regular file"):
        Opened(f"docker-archive:{tmp_path}", spool_dir)


@pytest.mark.peer
def test_skopeo_writes_what_we_read(tmp_path: Path, spool_dir: Path) -> None:
    """An archive written by another program, from the layers we built, gives the same layers."""
    image = image_of("one")
    source = write_archive(tmp_path / "ours.tar", docker_archive_entries({("demo:1",): image}))
    theirs = tmp_path / "theirs.tar"
    subprocess.run(["skopeo", "copy", "-q", f"docker-archive:{source}", f"docker-archive:{theirs}:demo:2"], check=True)

    found = Opened(f"docker-archive:{theirs}:demo:2", spool_dir)

    assert found.diff_ids == image.diff_ids
    assert found.blobs == [item.tar for item in image.layers]
