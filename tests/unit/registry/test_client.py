# SPDX-License-Identifier: Apache-2.0
"""Manifests and configurations, and what a registry's refusals become."""

import json

import pytest

from tests.unit.registry.odd_server import Answer, Asked, OddServer
from worker.errors import (
    AccessDenied,
    DigestMismatch,
    ImageNotFound,
    InvalidArgument,
    InvalidImage,
    ProvisionerError,
    RegistryUnavailable,
    RegistryUnusable,
    SizeMismatch,
)
from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest
from worker.oci.media_types import DOCKER_INDEX, DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from worker.oci.reference import Reference
from worker.registry.client import RegistryClient, RepositoryClient

CONTENT = b'{"schemaVersion": 2}'
DIGEST = Digest.of(CONTENT)
OTHER = Digest.of(b"other")


@pytest.fixture
def repository(client: RegistryClient, server: OddServer) -> RepositoryClient:
    """The repository `a` of the odd registry."""
    return client.repository(Reference.parse(f"{server.host}/a"), login=None)


def test_a_manifest_comes_with_its_type_and_digest(repository: RepositoryClient, server: OddServer) -> None:
    """The Content-Type without its parameters; and all types we can read are asked for."""
    server.on("/v2/a/manifests/1", Answer(body=CONTENT, headers={"Content-Type": f"{OCI_MANIFEST}; charset=utf-8"}))

    fetched = repository.manifest("1")

    assert (fetched.content, fetched.media_type, fetched.digest) == (CONTENT, OCI_MANIFEST, DIGEST)
    accept = server.asked[0].headers["accept"]
    assert all(name in accept for name in (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX))


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX])
def test_a_registry_that_answers_only_who_asks_for_its_type_answers(
    repository: RepositoryClient, server: OddServer, media_type: str
) -> None:
    """As Amazon's does: it told the ancestor that the operation is unsupported (MESOS-7431)."""

    def pick(asked: Asked) -> Answer:
        is_asked_for = media_type in asked.headers["accept"].split(", ")
        return Answer(body=CONTENT, headers={"Content-Type": media_type}) if is_asked_for else Answer(status=405)

    server.on("/v2/a/manifests/1", pick)

    assert repository.manifest("1").media_type == media_type


def test_a_registry_may_keep_type_and_digest_to_itself(repository: RepositoryClient, server: OddServer) -> None:
    """Both headers are optional for it."""
    server.on("/v2/a/manifests/1", Answer(body=CONTENT))

    fetched = repository.manifest("1")

    assert (fetched.media_type, fetched.digest) == (None, DIGEST)


def test_a_digest_is_asked_for_and_verified(repository: RepositoryClient, server: OddServer) -> None:
    """In the algorithm it was asked for."""
    digest = Digest.of(CONTENT, algorithm="sha512")
    server.on(f"/v2/a/manifests/{digest}", Answer(body=CONTENT))

    assert repository.manifest(digest).digest == digest


def test_a_lying_registry_is_caught_by_the_digest_asked_for(repository: RepositoryClient, server: OddServer) -> None:
    """Whatever its own header says."""
    server.on(f"/v2/a/manifests/{OTHER}", Answer(body=CONTENT, headers={"Docker-Content-Digest": str(OTHER)}))

    with pytest.raises(DigestMismatch, match=f"{DIGEST}, expected {OTHER}"):
        repository.manifest(OTHER)


@pytest.mark.parametrize(("header", "error"), [(str(OTHER), DigestMismatch), ("sha256:x", InvalidImage)])
def test_the_registrys_own_digest_must_hold(
    repository: RepositoryClient, server: OddServer, header: str, error: type[ProvisionerError]
) -> None:
    """A tag's manifest damaged on the way is noticed where the registry names its digest."""
    server.on("/v2/a/manifests/1", Answer(body=CONTENT, headers={"Docker-Content-Digest": header}))

    with pytest.raises(error):
        repository.manifest("1")


@pytest.mark.parametrize(
    "answer", [Answer(body=b" " * 65537), Answer(body=b" " * 65536, is_endless=True), Answer(body=b"", length=10**15)]
)
def test_a_manifest_beyond_the_bound_is_refused(
    repository: RepositoryClient, server: OddServer, answer: Answer
) -> None:
    """Told or not, nothing of it is kept."""
    server.on("/v2/a/manifests/1", answer)

    with pytest.raises(InvalidImage, match="larger than the 65536 bytes"):
        repository.manifest("1")


def test_a_manifest_that_breaks_off_is_fetched_again(repository: RepositoryClient, server: OddServer) -> None:
    """From the start: it is small."""
    server.on("/v2/a/manifests/1", Answer(body=CONTENT, cut_after=3), Answer(status=502), Answer(body=CONTENT))

    assert repository.manifest("1").content == CONTENT


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, AccessDenied),
        (403, AccessDenied),
        (404, ImageNotFound),
        (408, RegistryUnavailable),
        (429, RegistryUnavailable),
        (500, RegistryUnavailable),
        (503, RegistryUnavailable),
        (400, RegistryUnusable),
        (204, RegistryUnusable),
        (418, RegistryUnusable),
    ],
)
def test_a_status_becomes_the_error_it_means(
    repository: RepositoryClient, server: OddServer, status: int, error: type[ProvisionerError]
) -> None:
    """Whether a retry can help is part of the type; the registry's error code is told, its prose is not."""
    body = json.dumps({"errors": [{"code": "SOME_CODE", "message": "some prose"}]}).encode()
    server.on("/v2/a/manifests/1", Answer(status=status, body=b"" if status == 204 else body))

    with pytest.raises(error) as caught:
        repository.manifest("1")
    assert str(status) in str(caught.value)
    assert ("SOME_CODE" in str(caught.value)) is (status != 204)
    assert "prose" not in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"errors": 7}', b'{"errors": [{"code": "<b>"}, 7]}', b"[" * 100_000]
)
def test_a_refusal_needs_no_well_formed_body(repository: RepositoryClient, server: OddServer, body: bytes) -> None:
    """Proxies answer in their own ways."""
    server.on("/v2/a/manifests/1", Answer(status=404, body=body))

    with pytest.raises(ImageNotFound, match=r"answers 404 for manifest 1$"):
        repository.manifest("1")


def test_an_endless_refusal_ends(repository: RepositoryClient, server: OddServer) -> None:
    """The body of an error is bounded like any other."""
    server.on("/v2/a/manifests/1", Answer(status=404, body=b" " * 65536, is_endless=True))

    with pytest.raises(ImageNotFound):
        repository.manifest("1")


def test_a_registry_that_wants_a_long_break_gets_it_from_the_task(
    repository: RepositoryClient, server: OddServer, waits: list[float]
) -> None:
    """No wait here, and the error carries the seconds."""
    server.on("/v2/a/manifests/1", Answer(status=429, headers={"Retry-After": "600"}))

    with pytest.raises(RegistryUnavailable, match="429") as caught:
        repository.manifest("1")
    assert caught.value.retry_after_seconds == 600.0
    assert waits == []
    assert len(server.asked) == 1


def config_descriptor(content: bytes, *, size_bytes: int | None = None) -> Descriptor:
    """Return the descriptor of a configuration, whose size may lie."""
    size = len(content) if size_bytes is None else size_bytes
    return Descriptor(media_type=OCI_CONFIG, digest=Digest.of(content), size_bytes=size)


def test_a_configuration_is_verified(repository: RepositoryClient, server: OddServer) -> None:
    """Against its descriptor's digest and size."""
    server.on(f"/v2/a/blobs/{DIGEST}", Answer(body=CONTENT))
    server.on(f"/v2/a/blobs/{OTHER}", Answer(body=b"0ther"))

    assert repository.config(config_descriptor(CONTENT)) == CONTENT
    with pytest.raises(DigestMismatch):
        repository.config(config_descriptor(b"other"))
    with pytest.raises(SizeMismatch):
        repository.config(config_descriptor(CONTENT, size_bytes=len(CONTENT) - 1))
    with pytest.raises(InvalidImage, match="larger than"):
        repository.config(config_descriptor(CONTENT, size_bytes=65537))


def test_a_longer_configuration_of_untold_length_is_noticed(repository: RepositoryClient, server: OddServer) -> None:
    """One byte too many is read to tell."""
    server.on(f"/v2/a/blobs/{DIGEST}", Answer(body=CONTENT + b" ", length=-1))

    with pytest.raises(SizeMismatch):
        repository.config(config_descriptor(CONTENT))


def test_a_registry_on_an_impossible_port_is_the_callers_mistake(client: RegistryClient) -> None:
    """Nothing is asked."""
    with pytest.raises(InvalidArgument, match="port"):
        client.repository(Reference.parse("example.com:99999/a"), login=None)
