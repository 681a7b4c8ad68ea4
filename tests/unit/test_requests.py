# SPDX-License-Identifier: Apache-2.0
"""The wire contract's keywords, literally, and what is said about bad ones."""

import json
from typing import Any

import pytest

from worker.errors import InvalidArgument
from worker.requests import (
    DestroyRequest,
    ProvisionRequest,
    PruneRequest,
    PullRequest,
    RecoverRequest,
    VerifyRequest,
    _Request,
)

_CONTRACT: dict[type[_Request], dict[str, Any]] = {
    ProvisionRequest: {
        "container_id": ...,
        "image": ...,
        "name": "rootfs",
        "node": None,
        "backend": None,
        "platform": None,
        "cached": True,
        "read_only": False,
        "secret": None,
        "bundle": False,
    },
    DestroyRequest: {"container_id": ...},
    PruneRequest: {
        "excluded_images": [],
        "node": None,
        "dry_run": False,
        "unused_seconds": 0.0,
        "free_bytes": None,
        "free_percent": None,
    },
    PullRequest: {"image": ..., "node": None, "platform": None, "cached": True, "secret": None},
    RecoverRequest: {"known_container_ids": None, "node": None},
    VerifyRequest: {"image": None, "node": None, "repair": False},
}


@pytest.mark.parametrize("request_type", _CONTRACT)
def test_keywords_and_defaults_are_the_contracts(request_type: type[_Request]) -> None:
    """Names, order and defaults are public; a change here is a change of the contract."""
    fields = request_type.model_fields

    defaults = {name: ... if field.is_required() else field.default for name, field in fields.items()}

    assert list(defaults) == list(_CONTRACT[request_type])
    assert {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()} == _CONTRACT[
        request_type
    ]


@pytest.mark.parametrize(
    ("keywords", "named"),
    [
        ({"image": "alpine"}, "container_id"),
        ({"container_id": "c1"}, "image"),
        ({"container_id": "c1", "image": "alpine", "imagee": "x"}, "imagee"),
        ({"container_id": "c 1", "image": "alpine"}, "container_id"),
        ({"container_id": 1, "image": "alpine"}, "container_id"),
        ({"container_id": "c1", "image": "Alpine"}, "image"),
        ({"container_id": "c1", "image": "oci:relative/path"}, "image"),
        ({"container_id": "c1", "image": 7}, "image"),
        ({"container_id": "c1", "image": None}, "image"),
        ({"container_id": "c1", "image": "alpine", "name": "../x"}, "name"),
        ({"container_id": "c1", "image": "alpine", "name": ""}, "name"),
        ({"container_id": "c1", "image": "alpine", "node": "a/b"}, "node"),
        ({"container_id": "c1", "image": "alpine", "backend": 3}, "backend"),
        ({"container_id": "c1", "image": "alpine", "platform": "linux"}, "platform"),
        ({"container_id": "c1", "image": "alpine", "cached": "yes"}, "cached"),
        ({"container_id": "c1", "image": "alpine", "read_only": 1}, "read_only"),
        ({"container_id": "c1", "image": "alpine", "secret": "../../etc/shadow"}, "secret"),
        ({"container_id": "c1", "image": "alpine", "bundle": "yes"}, "bundle"),
    ],
)
def test_a_bad_provision_request_names_its_fault(keywords: dict[str, object], named: str) -> None:
    """Unknown, missing and malformed keywords are errors that name the keyword."""
    with pytest.raises(InvalidArgument) as caught:
        ProvisionRequest.parse(keywords)

    assert caught.value.argument == named
    assert named in str(caught.value)


def test_excluded_images_are_references_or_digests() -> None:
    """All spellings are understood; references are normalised; a digest counts also where a name stands before it."""
    digest, other = "sha256:" + "a" * 64, "sha256:" + "b" * 64

    request = PruneRequest.parse({"excluded_images": ["alpine", digest, f"busybox:1@{other}"]})

    assert request.excluded_references == {
        "docker.io/library/alpine:latest",
        f"docker.io/library/busybox:1@{other}",
    }
    assert {str(each) for each in request.excluded_digests} == {digest, other}


def test_every_image_of_a_request_has_the_default_registry() -> None:
    """What is stored of a request is complete."""
    image = {"image": "alpine"}
    provision = ProvisionRequest.parse({"container_id": "c1", **image}, default_registry="r.example")
    pull = PullRequest.parse(image, default_registry="r.example")
    prune = PruneRequest.parse({"excluded_images": ["alpine"]}, default_registry="r.example")
    verify = VerifyRequest.parse(image, default_registry="r.example")

    names = {provision.image.normalised, pull.image.normalised, *prune.excluded_references, verify.reference}

    assert names == {"r.example/alpine:latest"}
    assert ProvisionRequest.parse(json.loads(provision.to_json())).image == provision.image


@pytest.mark.parametrize("image", ["sha256:short", "UPPER"])
def test_a_malformed_stored_image_is_named(image: str) -> None:
    """One bad name fails the prune instead of pruning what was meant to stay, before any node is asked."""
    with pytest.raises(InvalidArgument, match=image):
        PruneRequest.parse({"excluded_images": ["alpine", image]})
    with pytest.raises(InvalidArgument, match=image):
        VerifyRequest.parse({"image": image})


def test_known_containers_are_parsed() -> None:
    """A malformed id among many is named."""
    with pytest.raises(InvalidArgument, match="container_id"):
        RecoverRequest.parse({"known_container_ids": ["fine", "not fine"]})
