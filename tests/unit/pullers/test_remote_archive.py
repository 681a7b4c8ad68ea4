# SPDX-License-Identifier: Apache-2.0
"""Archives at URLs: from real servers of HTTP and HTTPS, and from fsspec's own memory."""

import base64
import gzip
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import trustme

from tests.support.images import Image, build_image, layer
from tests.support.layouts import docker_archive_entries, legacy_archive_entries, oci_archive_entries
from tests.support.ports import free_port
from tests.support.tar import Entry, File, tar_bytes
from tests.unit.registry.odd_server import Answer, Asked, OddServer, odd_server
from worker.errors import (
    AccessDenied,
    ImageNotFound,
    InvalidArgument,
    InvalidImage,
    ProvisionerError,
    RegistryUnavailable,
    RegistryUnusable,
)
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource
from worker.puller import Credential
from worker.pullers.archive import ArchivePuller
from worker.settings import Settings

IMAGE = build_image([layer(File("base", b"b" * 5_000_000)), layer(File("top", b"t"))], style="docker")
CREDENTIAL = Credential("u", "s3cret-pass")


def archive_of(image: Image = IMAGE, *, entries: Any = docker_archive_entries) -> bytes:
    """Return an archive of one image, demo:1."""
    made: list[Entry] = entries({("demo:1",): image})
    return tar_bytes(made)


@pytest.fixture
def server() -> Iterator[OddServer]:
    """A web server that answers as told."""
    with odd_server() as running:
        yield running


def opened(
    source: str, tmp_path: Path, *, credential: Credential | None = None, **settings: Any
) -> tuple[list[str], list[bytes], bool]:
    """Return the image's DiffIDs and blobs, and whether it is private; nothing may be left of the archive then."""
    spool_dir = tmp_path / "staging"
    defaults = {"archive_protocols": ("http", "https", "memory"), "registry_timeout_seconds": 20}
    puller = ArchivePuller(Settings(**defaults | settings), spool_dir=spool_dir)
    platform = Platform.parse("linux/amd64")
    with puller.open(ImageSource.parse(source), platform=platform, credential=credential) as image:
        blobs = []
        for descriptor in image.layers:
            with image.blob(descriptor) as chunks:
                blobs.append(b"".join(chunks))
        found = [str(diff_id) for diff_id in image.image_config.diff_ids], blobs, image.is_private
    assert list(spool_dir.iterdir()) == []
    return found


@pytest.mark.parametrize("is_gzipped", [False, True])
@pytest.mark.parametrize("headers", [{}, {"length": -1}, {"chunk_bytes": 100_000}])
def test_an_archive_is_read_over_http(
    server: OddServer, tmp_path: Path, is_gzipped: bool, headers: dict[str, int]
) -> None:
    """With a length, without one and in chunks, compressed or not; the image is chosen as in a file."""
    content = archive_of()
    server.on("/images/demo.tar", Answer(body=gzip.compress(content, 1) if is_gzipped else content, **headers))

    for selector in ("", ":demo:1", ":@0"):
        source = f"docker-archive:http://{server.host}/images/demo.tar{selector}"
        diff_ids, blobs, is_private = opened(source, tmp_path)

        assert diff_ids == IMAGE.diff_ids
        assert blobs == [blob.content for blob in IMAGE.layer_blobs]
        assert not is_private
    with pytest.raises(ImageNotFound, match="there are: demo:1"):
        opened(f"docker-archive:http://{server.host}/images/demo.tar:demo:2", tmp_path)


@pytest.mark.parametrize("entries", [docker_archive_entries, oci_archive_entries, legacy_archive_entries])
def test_every_protocol_of_fsspec_gives_every_form(tmp_path: Path, entries: Any) -> None:
    """Here its memory; nothing but the settings says which."""
    made = {"demo:1": IMAGE} if entries is legacy_archive_entries else {("demo:1",): IMAGE}
    fsspec.filesystem("memory").pipe("/images/demo.tar", tar_bytes(entries(made)))

    diff_ids, _, _ = opened("docker-archive:memory:///images/demo.tar", tmp_path)

    assert diff_ids == IMAGE.diff_ids
    with pytest.raises(ImageNotFound, match=r"there is no memory:///images/absent\.tar"):
        opened("docker-archive:memory:///images/absent.tar", tmp_path)


def test_https_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the certificates that this machine trusts, and the host's name."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with (
        odd_server(authority.issue_cert("localhost", "127.0.0.1")) as good,
        odd_server(authority.issue_cert("other.example")) as other,
    ):
        for server in (good, other):
            server.on("/demo.tar", Answer(body=archive_of()))
        with pytest.raises(RegistryUnusable, match="certificate is not trusted"):
            opened(f"docker-archive:https://{good.host}/demo.tar", tmp_path)

        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

        assert opened(f"docker-archive:https://{good.host}/demo.tar", tmp_path)[0] == IMAGE.diff_ids
        with pytest.raises(RegistryUnusable, match="certificate is not trusted"):
            opened(f"docker-archive:https://{other.host}/demo.tar", tmp_path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a.tar", "file:///etc/passwd", "s3://bucket/a.tar", "memory:///a"])
def test_a_protocol_must_be_allowed(tmp_path: Path, url: str) -> None:
    """Only https is, unless the settings say so; the error says what does, before anything is asked or imported."""
    with pytest.raises(InvalidArgument, match=r"is not among PROVISIONER_ARCHIVE_PROTOCOLS, which are: https"):
        opened(f"docker-archive:{url}", tmp_path, archive_protocols=Settings().archive_protocols)


def test_a_protocol_that_needs_more_says_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra, or the package that fsspec names."""
    for protocol, names in {"s3": "s3fs", "nonesuch": "nonesuch"}.items():
        with pytest.raises(InvalidArgument, match=names):
            opened(f"docker-archive:{protocol}://bucket/a.tar", tmp_path, archive_protocols=(protocol,))
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(InvalidArgument, match=r"pip install rootfs-provisioner\[fsspec\]"):
        opened("docker-archive:https://example.com/a.tar", tmp_path)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(status=404), ImageNotFound),
        (Answer(status=401), AccessDenied),
        (Answer(status=403), AccessDenied),
        (Answer(status=410), RegistryUnusable),
        (Answer(status=429), RegistryUnavailable),
        (Answer(status=500), RegistryUnavailable),
        (Answer(body=archive_of(), cut_after=20_000), RegistryUnavailable),
        (Answer(body=b"<html>"), InvalidImage),
        (Answer(body=gzip.compress(archive_of(), 1)[:-100]), InvalidImage),
        (Answer(status=302, headers={"Location": "/demo.tar"}), RegistryUnavailable),
    ],
)
def test_what_goes_wrong_says_whether_a_retry_helps(
    server: OddServer, tmp_path: Path, answer: Answer, error: type[ProvisionerError]
) -> None:
    """And leaves nothing behind."""
    server.on("/demo.tar", answer)

    with pytest.raises(error) as caught:
        opened(f"docker-archive:http://{server.host}/demo.tar", tmp_path, credential=CREDENTIAL)

    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    assert "czNjcmV0" not in "".join(traceback.format_exception(caught.value))


def test_a_server_that_is_not_there_or_says_nothing_may_be_there_later(server: OddServer, tmp_path: Path) -> None:
    """Nobody waits longer than for a registry."""
    with pytest.raises(RegistryUnavailable):
        opened(f"docker-archive:http://127.0.0.1:{free_port()}/demo.tar", tmp_path)
    released = threading.Event()

    def silent(_asked: Asked) -> Answer:
        released.wait(30)
        return Answer(status=500)

    server.on("/demo.tar", silent)
    with pytest.raises(RegistryUnavailable):
        opened(f"docker-archive:http://{server.host}/demo.tar", tmp_path, registry_timeout_seconds=0.3)
    released.set()


@pytest.mark.parametrize(("header", "seconds"), [("120", 120.0), ("soon", None), (None, None)])
def test_a_busy_server_says_when_to_come_back(
    server: OddServer, tmp_path: Path, header: str | None, seconds: float | None
) -> None:
    """As a registry does; the task layer waits for it."""
    server.on("/demo.tar", Answer(status=503, headers={} if header is None else {"Retry-After": header}))

    with pytest.raises(RegistryUnavailable) as caught:
        opened(f"docker-archive:http://{server.host}/demo.tar", tmp_path)

    assert caught.value.retry_after_seconds == seconds


def test_a_credential_goes_to_its_host_only(server: OddServer, tmp_path: Path) -> None:
    """A redirect to another host is followed without it; what came with one is private."""
    basic = "Basic " + base64.b64encode(b"u:s3cret-pass").decode()
    with odd_server() as other:
        other.on("/real.tar", Answer(body=archive_of()))
        server.on("/demo.tar", Answer(status=302, headers={"Location": f"{other.url}/real.tar"}))

        _, _, is_private = opened(f"docker-archive:http://{server.host}/demo.tar", tmp_path, credential=CREDENTIAL)

        assert is_private
        assert {asked.authorization for asked in server.asked} == {basic}
        assert {asked.authorization for asked in other.asked} == {None}
    with pytest.raises(InvalidArgument, match="a secret is for http and https"):
        opened("docker-archive:memory://there/demo.tar", tmp_path, credential=CREDENTIAL)


def test_a_credential_of_another_host_is_not_shown(server: OddServer, tmp_path: Path) -> None:
    """A repair asks all sources of a layer with what its caller has for one of them."""
    server.on("/demo.tar", Answer(body=archive_of()))
    credential = Credential("u", "s3cret-pass", registry="registry.example:5000")

    _, _, is_private = opened(f"docker-archive:http://{server.host}/demo.tar", tmp_path, credential=credential)

    assert not is_private
    assert {asked.authorization for asked in server.asked} == {None}


@pytest.mark.parametrize(
    "location", ["http://169.254.169.254/latest", "http://example.com/a.tar", "ftp://a/b", "http:///"]
)
def test_a_redirect_leads_nowhere_a_registrys_might_not(server: OddServer, tmp_path: Path, location: str) -> None:
    """Neither to link-local addresses nor to plain HTTP elsewhere."""
    server.on("/demo.tar", Answer(status=302, headers={"Location": location}))

    with pytest.raises((RegistryUnusable, RegistryUnavailable)) as caught:
        opened(f"docker-archive:http://{server.host}/demo.tar", tmp_path)
    assert isinstance(caught.value, RegistryUnusable) or location == "http:///"


def test_the_old_name_of_location_leads_nowhere_either(server: OddServer, tmp_path: Path) -> None:
    """Where there is no Location, aiohttp follows URI."""
    server.on("/demo.tar", Answer(status=302, headers={"URI": "http://169.254.169.254/latest"}))

    with pytest.raises(RegistryUnusable, match=r"leads to http://169\.254\.169\.254"):
        opened(f"docker-archive:http://{server.host}/demo.tar", tmp_path)


def test_an_archive_beyond_the_bound_is_refused(server: OddServer, tmp_path: Path) -> None:
    """However it is compressed, it takes no more disk than that."""
    server.on(
        "/demo.tar",
        Answer(
            body=gzip.compress(archive_of(build_image([layer(File("a", bytes(9_000_000)), compression="none")])), 1)
        ),
    )

    with pytest.raises(InvalidImage, match="more than the 1000000 bytes allowed"):
        opened(f"docker-archive:http://{server.host}/demo.tar", tmp_path, max_layer_bytes=1_000_000)
