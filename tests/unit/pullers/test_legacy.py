# SPDX-License-Identifier: Apache-2.0
"""Images in archives from before Docker 1.10: a name, and layers that lead from one to the next."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import docker_client, engine_server
from tests.support.images import Image, build_image, dump, layer
from tests.support.layouts import legacy_archive_entries, write_archive
from tests.support.tar import Dir, Entry, File
from worker.errors import ImageNotFound, InvalidImage, PlatformNotFound
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource
from worker.pullers.archive import ArchivePuller
from worker.settings import Settings

CONFIG = {"Hostname": "", "Env": ["PATH=/bin"], "Cmd": ["/bin/true"], "WorkingDir": "/w", "Labels": {"a": "b"}}
BASE = layer(Dir("etc"), File("etc/motd", b"base"), compression="none")
EMPTY = layer(compression="none")


def image_of(text: str, **more: Any) -> Image:
    """Return an image of a base layer, two empty ones as instructions without files left, and one of its own."""
    top = layer(File("top", text.encode()), compression="none")
    return build_image([BASE, EMPTY, EMPTY, top], style="docker", config=CONFIG, **more)


class Opened:
    """What an archive gave, kept after it was closed."""

    def __init__(self, source: str, tmp_path: Path, **settings: Any) -> None:
        puller = ArchivePuller(Settings(**settings), spool_dir=tmp_path / "staging")
        platform = Platform.parse("linux/amd64")
        with puller.open(ImageSource.parse(source), platform=platform, credential=None) as image:
            self.digest, self.document = str(image.digest), image.image_config.document
            self.config, self.manifest = image.config, json.loads(image.manifest)
            self.diff_ids = [str(diff_id) for diff_id in image.image_config.diff_ids]
            self.blobs = []
            for descriptor in image.layers:
                with image.blob(descriptor) as chunks:
                    self.blobs.append(b"".join(chunks))


def write(tmp_path: Path, entries: list[Entry], **more: Any) -> str:
    """Write an archive and return its source."""
    return f"docker-archive:{write_archive(tmp_path / 'image.tar', entries, **more)}"


def entries_with(name: str, content: bytes) -> list[Entry]:
    """Return an archive of one image in which one member, by the end of its name, has other content."""
    entries = legacy_archive_entries({"demo:1": image_of("one")})
    (path,) = [entry.path for entry in entries if entry.path.endswith(name)][:1]
    return [entry for entry in entries if entry.path != path] + [File(path, content)]


@pytest.mark.parametrize("is_gzipped", [False, True])
def test_layers_come_base_first_with_digests_made_up(tmp_path: Path, is_gzipped: bool) -> None:
    """As the parents lead, also from a compressed archive; an empty layer that stands twice is one blob."""
    image = image_of("one")

    found = Opened(write(tmp_path, legacy_archive_entries({"demo:1": image}), is_gzipped=is_gzipped), tmp_path)

    assert found.diff_ids == image.diff_ids
    assert found.blobs == [item.tar for item in image.layers]
    assert [each["digest"] for each in found.manifest["layers"]] == image.diff_ids


def test_the_configuration_has_all_that_the_v1_image_manifest_had(tmp_path: Path) -> None:
    """What the ancestor answered with: id, parent, container, container_config, config, author, Size and the rest."""
    more = {"author": "a@b", "container": "c1", "comment": "last", "x-unknown": [1, None]}
    entries = legacy_archive_entries({"demo:1": image_of("one")}, more=more)
    documents = [json.loads(each.content) for each in entries if each.path.endswith("/json")]

    found = Opened(write(tmp_path, entries), tmp_path)

    added = {name: found.document[name] for name in ("rootfs", "history")}
    assert found.document == {**documents[-1], **added}
    assert found.document["parent"] == documents[-2]["id"]
    assert found.document["config"] == CONFIG
    assert [each["created_by"] for each in added["history"]] == [f"/bin/sh {number}" for number in range(4)]
    assert added["history"][-1] == {
        "created": documents[-1]["created"],
        "author": "a@b",
        "comment": "last",
        "created_by": "/bin/sh 3",
    }


def test_one_image_has_one_digest(tmp_path: Path) -> None:
    """Whatever else is in its archive, so that it is stored once."""
    one, two = image_of("one"), image_of("two")
    alone = Opened(write(tmp_path, legacy_archive_entries({"demo:1": one})), tmp_path)
    source = write(tmp_path, legacy_archive_entries({"demo:2": two, "demo:1": one})[::-1])

    assert Opened(f"{source}:demo:1", tmp_path).digest == alone.digest
    assert Opened(f"{source}:demo:2", tmp_path).digest != alone.digest


@pytest.mark.parametrize("name", ["busybox:latest", "docker.io/busybox:latest", "library/busybox:latest"])
def test_a_name_is_found_however_it_was_written(tmp_path: Path, name: str) -> None:
    """By whoever asks for it in any spelling; latest is what is meant without a tag."""
    entries = legacy_archive_entries({name: image_of("one"), "host:5000/team/app:2": image_of("two")})
    source = write(tmp_path, entries)

    for spelling in ("busybox", "library/busybox:latest", "docker.io/library/busybox"):
        assert Opened(f"{source}:{spelling}", tmp_path).diff_ids == image_of("one").diff_ids
    assert Opened(f"{source}:host:5000/team/app:2", tmp_path).diff_ids == image_of("two").diff_ids
    assert Opened(f"{source}:@1", tmp_path).diff_ids
    with pytest.raises(ImageNotFound, match=r"there are: .*host:5000/team/app:2"):
        Opened(f"{source}:busybox:1", tmp_path)
    with pytest.raises(ImageNotFound, match="there are several"):
        Opened(source, tmp_path)


@pytest.mark.parametrize("parent", ["", None])
def test_a_root_may_say_that_it_is_one(tmp_path: Path, parent: str | None) -> None:
    """With an empty parent or null, as some tools write it."""
    image = build_image([BASE], config=CONFIG)
    source = write(tmp_path, legacy_archive_entries({"demo:1": image}, more={"parent": parent}))

    assert Opened(source, tmp_path).diff_ids == image.diff_ids


def test_a_compressed_layer_is_known_by_what_it_holds(tmp_path: Path) -> None:
    """Tools that squash or edit archives leave such layers."""
    image = build_image([layer(File("a"), compression="gzip"), layer(File("b"), compression="zstd")])

    found = Opened(write(tmp_path, legacy_archive_entries({"demo:1": image})), tmp_path)

    assert found.diff_ids == image.diff_ids
    assert [each["digest"] for each in found.manifest["layers"]] == [blob.digest for blob in image.layer_blobs]


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([File("repositories", b"[]")], "not a JSON object"),
        ([File("repositories", b"{}")], "there are: none"),
        ([File("repositories", b'{"demo": "1"}')], "does not name tags and layers"),
        ([File("repositories", b'{"demo": {"1": 7}}')], "does not name tags and layers"),
        ([File("repositories", b'{"demo": {"1": "absent"}}')], "it has no absent/json"),
        ([File("repositories", b'{"demo": {"1": ""}}')], "it has no layers"),
        ([File("repositories", b'{"demo": {"1": "../a"}}'), File("a/json", b"{}")], r"it has no \.\./a/json"),
        (entries_with("/json", b"[]"), "not a JSON object"),
        (entries_with("/json", b'{"parent": 7}'), "parent is no string"),
        (entries_with("/layer.tar", b"\x1f\x8b\x08 cut"), "layer.tar is refused"),
        (entries_with("/layer.tar", b"BZh91AY&SY"), "compressed with bzip2"),
    ],
)
def test_what_is_no_such_archive_is_refused(tmp_path: Path, entries: list[Entry], reason: str) -> None:
    """Each for its own reason, with the archive's name."""
    source = write(tmp_path, entries)

    with pytest.raises((InvalidImage, ImageNotFound), match=reason) as caught:
        Opened(source, tmp_path)
    assert source in str(caught.value)


def test_a_layer_that_is_its_own_ancestor_is_refused(tmp_path: Path) -> None:
    """Ids are only names, so a chain may be a ring."""
    documents = {"a": {"parent": "b"}, "b": {"parent": "a"}}
    entries: list[Entry] = [File(f"{name}/json", dump(document)) for name, document in documents.items()]
    source = write(tmp_path, [*entries, File("repositories", dump({"demo": {"1": "a"}}))])

    with pytest.raises(InvalidImage, match="is its own ancestor"):
        Opened(source, tmp_path)


def test_a_chain_has_the_bound_of_all_images(tmp_path: Path) -> None:
    """Before anything of it is read to the end."""
    source = write(tmp_path, legacy_archive_entries({"demo:1": image_of("one")}))

    assert Opened(source, tmp_path, max_layers=4).diff_ids
    with pytest.raises(InvalidImage, match="more than the 3 layers allowed"):
        Opened(source, tmp_path, max_layers=3)


def test_an_image_for_another_platform_is_refused(tmp_path: Path) -> None:
    """Its document says what it runs on; one that does not say is taken."""
    entries = legacy_archive_entries({"demo:1": image_of("one")}, more={"architecture": "arm64"})
    with pytest.raises(PlatformNotFound, match="it has linux/arm64"):
        Opened(write(tmp_path, entries), tmp_path)

    entries = legacy_archive_entries({"demo:1": image_of("one")}, more={"architecture": "", "os": None})
    assert Opened(write(tmp_path, entries), tmp_path).diff_ids


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_docker_reads_the_same_layers(tmp_path: Path) -> None:
    """An Engine that loads the archive finds the same DiffIDs, and runs the same."""
    image = image_of("one")
    source = write(tmp_path, legacy_archive_entries({"demo:1": image}))
    with tempfile.TemporaryDirectory(prefix="engine-") as directory, engine_server(Path(directory)) as engine:
        with docker_client(engine.host) as client, (tmp_path / "image.tar").open("rb") as archive:
            # The SDK expects an answer of JSON lines, which such archives get none of.
            client.api.post(client.api._url("/images/load"), data=archive).raise_for_status()
            theirs = client.api.inspect_image("demo:1")

    ours = Opened(source, tmp_path)

    assert theirs["RootFS"]["Layers"] == ours.diff_ids
    assert theirs["Config"]["Cmd"] == ours.document["config"]["Cmd"]
    assert theirs["DockerVersion"] == ours.document["docker_version"]
