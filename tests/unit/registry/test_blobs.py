# SPDX-License-Identifier: Apache-2.0
"""Blobs over connections that break."""

import gzip
import random
import re
from collections.abc import Callable

import pytest

from tests.unit.registry.odd_server import Answer, Asked, OddServer
from worker.errors import ImageNotFound, ProvisionerError, RegistryUnavailable, RegistryUnusable, SizeMismatch
from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest
from worker.oci.media_types import OCI_LAYER, OCI_NONDISTRIBUTABLE
from worker.oci.reference import Reference
from worker.registry.channel import CHUNK_BYTES
from worker.registry.client import RegistryClient, RepositoryClient
from worker.registry.session import Session

BLOB = random.Random(7).randbytes(3 * CHUNK_BYTES + 12_345)
DIGEST = Digest.of(BLOB)
PATH = f"/v2/a/blobs/{DIGEST}"
DESCRIPTOR = Descriptor(media_type=OCI_LAYER, digest=DIGEST, size_bytes=len(BLOB))


@pytest.fixture
def repository(client: RegistryClient, server: OddServer) -> RepositoryClient:
    """The repository `a` of the odd registry."""
    return client.repository(Reference.parse(f"{server.host}/a"), login=None)


def read(repository: RepositoryClient, descriptor: Descriptor = DESCRIPTOR) -> bytes:
    """Read the blob to its end."""
    with repository.blob(descriptor) as chunks:
        return b"".join(chunks)


def offset_of(asked: Asked) -> int:
    """Return where a range request starts; 0 for one without a range."""
    match = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("range", "bytes=0-"))
    assert match is not None
    return int(match[1])


def ranged(*, cut_after: int | None = None, length: int | None = None) -> Callable[[Asked], Answer]:
    """Return a script of a registry that supports ranges and breaks off after so many bytes."""

    def script(asked: Asked) -> Answer:
        offset = offset_of(asked)
        headers = {"Content-Range": f"bytes {offset}-{len(BLOB) - 1}/{len(BLOB)}"} if "range" in asked.headers else {}
        status = 206 if headers else 200
        return Answer(status=status, headers=headers, body=BLOB[offset:], cut_after=cut_after, length=length)

    return script


def test_a_blob_comes_in_chunks_of_a_mebibyte(repository: RepositoryClient, server: OddServer) -> None:
    """All but the last, however small the pieces in which the network brings them."""
    server.on(PATH, Answer(body=BLOB))

    with repository.blob(DESCRIPTOR) as chunks:
        sizes = [len(chunk) for chunk in chunks]

    assert sizes == [CHUNK_BYTES, CHUNK_BYTES, CHUNK_BYTES, 12_345]


def test_a_broken_transfer_goes_on_where_it_broke(repository: RepositoryClient, server: OddServer) -> None:
    """What has arrived is not fetched again."""
    server.on(PATH, ranged(cut_after=CHUNK_BYTES + 100), ranged(cut_after=70_000), ranged())

    assert read(repository) == BLOB
    assert [offset_of(asked) for asked in server.asked] == [0, CHUNK_BYTES + 100, CHUNK_BYTES + 70_100]


def test_a_connection_that_ends_without_a_length_is_not_taken_for_the_end(
    repository: RepositoryClient, server: OddServer
) -> None:
    """Only the descriptor's size says what is whole."""
    server.on(PATH, Answer(body=BLOB[:1000], length=-1), ranged())

    assert read(repository) == BLOB


def test_a_blob_may_come_chunked(repository: RepositoryClient, server: OddServer) -> None:
    """Proxies do that; a break in the middle of a chunk is resumed like any other."""
    server.on(PATH, Answer(body=BLOB, chunk_bytes=70_001, cut_after=CHUNK_BYTES + 999), ranged())

    assert read(repository) == BLOB
    assert CHUNK_BYTES // 2 < offset_of(server.asked[1]) <= CHUNK_BYTES + 999
    server.on(PATH, Answer(body=BLOB, chunk_bytes=70_001))
    assert read(repository) == BLOB


def test_a_blob_is_taken_as_it_is_stored(repository: RepositoryClient, server: OddServer) -> None:
    """Object stores mark gzip layers with a Content-Encoding; the digest is of what is inside that."""
    content = gzip.compress(BLOB[:1000])
    digest = Digest.of(content)
    server.on(f"/v2/a/blobs/{digest}", Answer(body=content, headers={"Content-Encoding": "gzip"}))

    assert read(repository, Descriptor(media_type=OCI_LAYER, digest=digest, size_bytes=len(content))) == content


def test_any_number_of_breaks_is_sat_out_while_there_is_progress(
    repository: RepositoryClient, server: OddServer, waits: list[float]
) -> None:
    """Three tries are for a registry that brings nothing, not for a long blob on a bad line."""
    server.on(PATH, ranged(cut_after=CHUNK_BYTES // 4))

    with pytest.raises(RegistryUnavailable):
        read(repository)
    assert len(waits) == 2
    server.asked.clear()
    server.on(PATH, ranged(cut_after=CHUNK_BYTES))
    assert read(repository) == BLOB
    assert len(server.asked) == 4


def test_a_registry_that_ignores_ranges_is_read_from_the_start(repository: RepositoryClient, server: OddServer) -> None:
    """A 200 to a range request is the whole blob; what is known is skipped."""
    server.on(PATH, Answer(body=BLOB, cut_after=2 * CHUNK_BYTES + 5), Answer(body=BLOB))

    assert read(repository) == BLOB
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": f"bytes 0-{len(BLOB) - 1}/{len(BLOB)}"},
        {"Content-Range": f"bytes 99-{len(BLOB) - 1}/*"},
        {"Content-Range": "nonsense"},
        {},
    ],
)
def test_a_wrong_range_is_not_believed(
    repository: RepositoryClient, server: OddServer, headers: dict[str, str]
) -> None:
    """The blob is then asked for whole."""
    server.on(PATH, ranged(cut_after=500), Answer(status=206, headers=headers, body=b"x" * 100), Answer(body=BLOB))

    assert read(repository) == BLOB
    assert "range" not in server.asked[-1].headers


@pytest.mark.parametrize("headers", [{}, {"Content-Range": f"bytes */{len(BLOB)}"}])
def test_a_refused_range_is_asked_for_whole(
    repository: RepositoryClient, server: OddServer, headers: dict[str, str]
) -> None:
    """416 from a registry that otherwise agrees on the size."""
    server.on(PATH, ranged(cut_after=500), Answer(status=416, headers=headers), Answer(body=BLOB))

    assert read(repository) == BLOB


@pytest.mark.parametrize(
    "answers",
    [
        (Answer(body=BLOB + b"x"),),
        (Answer(body=BLOB[:-1]),),
        (Answer(body=b""),),
        (ranged(cut_after=500), Answer(status=416, headers={"Content-Range": "bytes */500"})),
        (ranged(cut_after=500), Answer(status=206, headers={"Content-Range": "bytes 500-999/1000"}, body=b"x" * 500)),
    ],
)
def test_a_registry_that_tells_another_size_is_believed_at_once(
    repository: RepositoryClient, server: OddServer, answers: tuple[Answer, ...]
) -> None:
    """The descriptor is wrong or the blob is, and no retry changes that."""
    server.on(PATH, *answers)

    with pytest.raises(SizeMismatch, match=str(DIGEST)):
        read(repository)


def test_an_endless_blob_ends_one_byte_after_its_size(repository: RepositoryClient, server: OddServer) -> None:
    """One byte too many is enough for the reader to tell."""
    server.on(PATH, Answer(body=BLOB, is_endless=True))

    content = read(repository)

    assert len(content) == len(BLOB) + 1
    assert content[:-1] == BLOB


def test_a_busy_registry_is_asked_again(repository: RepositoryClient, server: OddServer, waits: list[float]) -> None:
    """Retry-After is kept to the second; 5xx has a backoff of our own."""
    server.on(PATH, Answer(status=429, headers={"Retry-After": "3"}), Answer(status=503), Answer(body=BLOB))

    assert read(repository) == BLOB
    assert waits[0] == 3.0
    assert len(waits) == 2


def test_a_missing_blob_is_named(repository: RepositoryClient) -> None:
    """With the image it belongs to."""
    with pytest.raises(ImageNotFound, match=str(DIGEST)):
        read(repository)


def test_a_reader_may_stop_early(repository: RepositoryClient, server: OddServer) -> None:
    """The connection is dropped, and the next blob comes over another."""
    server.on(PATH, Answer(body=BLOB))

    with repository.blob(DESCRIPTOR) as chunks:
        next(chunks)

    assert read(repository) == BLOB


def test_an_empty_blob_is_no_chunk(repository: RepositoryClient, server: OddServer) -> None:
    """There is nothing to wait for."""
    digest = Digest.of(b"")
    server.on(f"/v2/a/blobs/{digest}", Answer())

    assert read(repository, Descriptor(media_type=OCI_LAYER, digest=digest, size_bytes=0)) == b""


def foreign(*urls: str, media_type: str = OCI_NONDISTRIBUTABLE) -> Descriptor:
    """Return the blob's descriptor with URLs of its own."""
    return Descriptor(media_type=media_type, digest=DIGEST, size_bytes=len(BLOB), urls=urls)


def test_a_foreign_layer_is_had_where_its_urls_say(
    client: RegistryClient, server: OddServer, other_server: OddServer
) -> None:
    """After the registry said 404, from the first URL that has it, also across breaks, and without credentials."""
    other_server.on("/layer", ranged(cut_after=CHUNK_BYTES), ranged())
    urls = ("ftp://example.com/x", f"{other_server.url}/missing", f"{other_server.url}/layer")
    repository = client.repository(Reference.parse(f"{server.host}/a"), login=None)

    assert read(repository, foreign(*urls)) == BLOB
    assert len(server.asked_for(PATH)) == 2
    assert {asked.authorization for asked in other_server.asked} == {None}


def test_a_registry_that_has_a_foreign_layer_gives_it(
    repository: RepositoryClient, server: OddServer, other_server: OddServer
) -> None:
    """The layer's URLs are not asked then."""
    server.on(PATH, Answer(body=BLOB))

    assert read(repository, foreign(f"{other_server.url}/layer")) == BLOB
    assert other_server.asked == []


@pytest.mark.parametrize(
    ("descriptor", "error"),
    [
        (foreign("http://169.254.169.254/x"), RegistryUnusable),
        (foreign("file:///etc/passwd"), RegistryUnusable),
        (foreign(), ImageNotFound),
        (foreign("http://127.0.0.1:1/x", media_type=OCI_LAYER), ImageNotFound),
    ],
)
def test_a_foreign_url_that_must_not_be_followed_is_refused(
    repository: RepositoryClient, descriptor: Descriptor, error: type[ProvisionerError]
) -> None:
    """A manifest is a stranger's word; and only layers of the foreign media types are looked for elsewhere."""
    with pytest.raises(error):
        read(repository, descriptor)


def test_a_session_names_its_registry(repository: RepositoryClient, server: OddServer) -> None:
    """For messages of those who hold one."""
    session: Session = repository._session

    assert session.registry == server.host
