# SPDX-License-Identifier: Apache-2.0
"""An archive that did not change is fetched again only if its layer is wanted."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.acis import AciServer, aci_server, aci_tar, appc_manifest, dependency, write_aci
from tests.support.descriptors import open_below
from tests.support.tar import File
from worker.errors import DigestMismatch, RegistryUnavailable, RegistryUnusable
from worker.oci.digest import Digest
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource
from worker.puller import RemoteImage
from worker.pullers.appc.puller import AppcPuller
from worker.settings import Settings

BASE_PATH, APP_PATH = (f"/example.com/{name}-latest-linux-amd64.aci" for name in ("base", "app"))
APP = "appc:example.com/app"


def write_images(directory: Path, *, base: bytes = b"base", whitelist: tuple[str, ...] = ()) -> None:
    """Write an image and what it depends on."""
    write_aci(directory, "example.com/base", aci_tar(appc_manifest("example.com/base"), File("base", base)))
    more = {"pathWhitelist": list(whitelist)} if whitelist else {}
    manifest = appc_manifest("example.com/app", dependencies=[dependency("example.com/base")], **more)
    write_aci(directory, "example.com/app", aci_tar(manifest, File("app", b"app")))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AciServer]:
    """A server with the image."""
    write_images(tmp_path / "acis")
    with aci_server(tmp_path / "acis") as made:
        yield made


@contextmanager
def opened(tmp_path: Path, prefix: str, source: str = APP) -> Iterator[RemoteImage]:
    """Open the image with a puller of its own, as another process would."""
    settings = Settings(appc_discovery_prefix=prefix, registry_attempts=1)
    puller = AppcPuller(settings, spool_dir=tmp_path / "spool", known_dir=tmp_path / "known")
    with puller.open(ImageSource.parse(source), platform=Platform("linux", "amd64"), credential=None) as image:
        yield image


def blobs(image: RemoteImage) -> list[bytes]:
    """Return all blobs; each has the digest of its descriptor."""
    found = []
    for descriptor in image.layers:
        with image.blob(descriptor) as chunks:
            found.append(b"".join(chunks))
        assert Digest.of(found[-1]) == descriptor.digest
    return found


def test_an_unchanged_archive_is_asked_for_and_not_sent(tmp_path: Path, server: AciServer) -> None:
    """The same image comes of it; its layers can be had all the same, each by a transfer of its own."""
    url = f"http://{server.host}/"
    with opened(tmp_path, url) as image:
        first, layers = (image.digest, image.manifest, image.config), blobs(image)
    assert server.sent == [APP_PATH, BASE_PATH]

    with opened(tmp_path, url) as image:
        assert (image.digest, image.manifest, image.config) == first
        assert server.sent == [APP_PATH, BASE_PATH]
        assert len(server.asked) == 4
        with image.blob(image.layers[0], offset=512) as chunks:
            assert b"".join(chunks) == layers[0][512:]
    assert server.sent == [APP_PATH, BASE_PATH, BASE_PATH]


def test_what_changed_is_fetched_and_nothing_else(tmp_path: Path, server: AciServer) -> None:
    """A dependency that moved on under its name."""
    with opened(tmp_path, f"http://{server.host}/") as image:
        before = image.layers
    write_images(tmp_path / "acis", base=b"newer")

    with opened(tmp_path, f"http://{server.host}/") as image:
        assert image.layers[1] == before[1]
        assert b"newer" in blobs(image)[0]
    assert server.sent == [APP_PATH, BASE_PATH, BASE_PATH, APP_PATH]


@pytest.mark.parametrize("etag_form", [None, 'W/"{}"', '"{}', "{}"])
def test_a_server_without_strong_etags_sends_everything(tmp_path: Path, server: AciServer, etag_form: str) -> None:
    """Dates have seconds only, and weak tags stand for several contents."""
    server.etag_form = etag_form
    for _ in range(2):
        with opened(tmp_path, f"http://{server.host}/") as image:
            assert len(blobs(image)) == 2

    assert server.sent == [APP_PATH, BASE_PATH] * 2


def test_not_modified_is_no_answer_to_who_knows_nothing(tmp_path: Path, server: AciServer) -> None:
    """A server that says so all the same breaks its protocol."""
    server.answers[BASE_PATH] = [(304, {})]

    with pytest.raises(RegistryUnusable, match="304"), opened(tmp_path, f"http://{server.host}/"):
        pass


def test_an_archive_that_changes_in_between_is_no_ones_fault(tmp_path: Path, server: AciServer) -> None:
    """Its layer is wanted, and is another by now: the next try begins with what is there then."""
    url = f"http://{server.host}/"
    with opened(tmp_path, url):
        pass
    with opened(tmp_path, url) as image:
        write_images(tmp_path / "acis", base=b"newer")
        with pytest.raises(RegistryUnavailable, match="changed"), image.blob(image.layers[0]):
            pass

    with opened(tmp_path, url) as image:
        assert b"newer" in blobs(image)[0]


def test_a_known_archive_is_held_to_what_is_asked(tmp_path: Path, server: AciServer) -> None:
    """An id that it does not have is refused without a transfer."""
    url = f"http://{server.host}/"
    with opened(tmp_path, url):
        pass

    with pytest.raises(DigestMismatch), opened(tmp_path, url, f"{APP}@sha512-{'0' * 128}"):
        pass
    assert server.sent == [APP_PATH, BASE_PATH]


def test_a_whitelist_needs_the_archives_and_gives_the_same(tmp_path: Path, server: AciServer) -> None:
    """What it leaves has to be computed of them."""
    write_images(tmp_path / "acis", whitelist=("/app",))
    digests = set()
    for _ in range(2):
        with opened(tmp_path, f"http://{server.host}/") as image:
            digests.add(image.digest)
            assert b"base" not in b"".join(blobs(image))
    assert len(digests) == 1


def test_a_directory_is_known_by_its_files(tmp_path: Path) -> None:
    """A file that is the same file, unchanged, is not read; one that is younger than its clock's tick always is."""
    write_images(tmp_path / "acis")
    time.sleep(0.15)
    with opened(tmp_path, str(tmp_path / "acis")) as image:
        first, known = image.digest, sorted((tmp_path / "known").iterdir())
    assert len(known) == 2

    with ExitStack() as spool:
        image = spool.enter_context(opened(tmp_path, str(tmp_path / "acis")))
        assert image.digest == first
        assert open_below(tmp_path / "spool") == []
        assert len(blobs(image)) == 2

    write_images(tmp_path / "acis", base=b"newer")
    with opened(tmp_path, str(tmp_path / "acis")) as image:
        assert image.digest != first
        assert len(open_below(tmp_path / "spool")) == 2
