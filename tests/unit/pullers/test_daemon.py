# SPDX-License-Identifier: Apache-2.0
"""Images of a Docker Engine: of a real one, and of one that is not there or breaks off."""

import gc
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.engine import Engine, engine_server
from tests.support.images import build_image, layer
from tests.support.layouts import docker_archive_entries, write_archive
from tests.support.tar import Dir, File
from worker.errors import ImageNotFound, PlatformNotFound, RegistryUnavailable
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource
from worker.pullers.daemon import DaemonPuller
from worker.settings import Settings

AMD64 = Platform("linux", "amd64")
IMAGE = build_image(
    [
        layer(Dir("etc"), File("etc/motd", b"base"), compression="none"),
        layer(Dir("etc"), File("etc/motd", b"top"), compression="none"),
    ],
    style="docker",
)


def answer_of(body: bytes, *, status: bytes = b"200 OK") -> bytes:
    """Return an answer with a body, at whose end the connection does."""
    return b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


VERSION = answer_of(b'{"ApiVersion":"1.44"}')


# The SDK leaves the sockets of failed connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def _collect_sockets() -> Iterator[None]:
    """Let them be collected here, where that is no failure."""
    yield
    gc.collect()


@pytest.fixture
def spool_dir(tmp_path: Path) -> Path:
    """Where images are spooled."""
    return tmp_path / "staging"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """An Engine that has IMAGE as demo:1; below /tmp, since a socket's path is at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="engine-") as directory, engine_server(Path(directory)) as server:
        server.load(write_archive(Path(directory) / "demo.tar", docker_archive_entries({("demo:1",): IMAGE})))
        yield server


def opened(source: str, *, host: str, spool_dir: Path, platform: Platform = AMD64) -> tuple[list[str], list[bytes]]:
    """Return the image's DiffIDs and blobs."""
    puller = DaemonPuller(Settings(docker_host=host, registry_timeout_seconds=20), spool_dir=spool_dir)
    with puller.open(ImageSource.parse(source), platform=platform, credential=None) as image:
        blobs = []
        for descriptor in image.layers:
            with image.blob(descriptor) as chunks:
                blobs.append(b"".join(chunks))
        return [str(diff_id) for diff_id in image.image_config.diff_ids], blobs


@pytest.mark.root
@pytest.mark.engine
def test_an_engines_image_has_the_layers_it_was_loaded_with(engine: Engine, spool_dir: Path) -> None:
    """By name, by full name and by id; and the spooled archive is gone afterwards."""
    sources = ("demo:1", "docker.io/library/demo:1", engine.image_id("demo:1"))

    for source in sources:
        diff_ids, blobs = opened(f"docker-daemon:{source}", host=engine.host, spool_dir=spool_dir)
        assert diff_ids == IMAGE.diff_ids
        assert len(blobs) == 2

    assert list(spool_dir.iterdir()) == []


@pytest.mark.root
@pytest.mark.engine
def test_an_image_the_engine_does_not_have_is_not_found(engine: Engine, spool_dir: Path) -> None:
    """Nothing is pulled into the Engine on the way."""
    for source in ("demo:2", "sha256:" + "0" * 64):
        with pytest.raises(ImageNotFound, match="No such image"):
            opened(f"docker-daemon:{source}", host=engine.host, spool_dir=spool_dir)


@pytest.mark.root
@pytest.mark.engine
def test_an_image_for_another_platform_is_refused(engine: Engine, spool_dir: Path) -> None:
    """The Engine gives what it has; the platform is checked all the same."""
    with pytest.raises(PlatformNotFound):
        opened("docker-daemon:demo:1", host=engine.host, spool_dir=spool_dir, platform=Platform("linux", "s390x"))

    assert list(spool_dir.iterdir()) == []


def test_an_engine_that_is_not_there_is_unavailable(tmp_path: Path, spool_dir: Path) -> None:
    """It may come back: a retry can help."""
    for host in (f"unix://{tmp_path}/missing.sock", "tcp://127.0.0.1:1"):
        with pytest.raises(RegistryUnavailable, match="unavailable"):
            opened("docker-daemon:demo:1", host=host, spool_dir=spool_dir)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 20\r\n\r\n" + b'{"message":"broken"}', RegistryUnavailable),
        (b"HTTP/1.1 400 Bad\r\nContent-Length: 18\r\n\r\n" + b'{"message":"what"}', ImageNotFound),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", RegistryUnavailable),
        (answer_of(b'{"Size": %s}' % (b"9" * 5000)), RegistryUnavailable),
        (answer_of(b"[" * 100_000), RegistryUnavailable),
        (answer_of(b"[]", status=b"404 Not Found"), RegistryUnavailable),
        (answer_of(b"{}", status=b"500 Oops"), RegistryUnavailable),
        (b"nonsense\r\n\r\n", RegistryUnavailable),
        (b"", RegistryUnavailable),
    ],
)
def test_every_way_an_engine_fails_has_its_error(spool_dir: Path, answer: bytes, expected: type[Exception]) -> None:
    """Broken off, nonsense, its own fault or the request's: never an exception of the SDK."""
    with answering(answer) as host, pytest.raises(expected) as caught:
        opened("docker-daemon:demo:1", host=host, spool_dir=spool_dir)

    assert type(caught.value) is expected


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Run a server that tells its version, gives every other request the same answer and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=answer_all, args=(listener, answer))
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def answer_all(listener: socket.socket, answer: bytes) -> None:
    """Answer until the listener is shut down."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            request = connection.recv(65536)
            connection.sendall(VERSION if b" /version " in request else answer)
