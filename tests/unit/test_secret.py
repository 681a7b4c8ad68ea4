# SPDX-License-Identifier: Apache-2.0
"""What a secret may look like."""

import base64
import json
import traceback
from typing import Any

import pytest

from worker.puller import Credential
from worker.secret import Secret, SecretMalformed

AUTH = base64.b64encode(b"user:pass:word").decode()
PAIR = {"username": "user", "password": "pass:word"}


def credential(document: Any, registry: str = "example.com:5000") -> Credential:
    """Parse a secret and use it."""
    return Secret.parse(json.dumps(document)).credential(registry)


@pytest.mark.parametrize(
    "document",
    [
        PAIR,
        {**PAIR, "registry": "example.com:5000"},
        {**PAIR, "note": 7},
        {"auths": {"example.com:5000": {"auth": AUTH}}},
        {"auths": {"https://example.com:5000/v2/": {"auth": AUTH}, "docker.io": {"auth": "eDp5"}}},
        {"auths": {"example.com:5000": {**PAIR, "email": "a@b"}}},
        {"auths": {"example.com:5000": {**PAIR, "auth": AUTH}}, "HttpHeaders": {"User-Agent": "docker"}},
        {"example.com:5000": {"auth": AUTH, "email": "a@b"}},
    ],
)
def test_every_form_gives_the_same_login(document: dict[str, Any]) -> None:
    """Ours, Docker's and Kubernetes', old and new; each is bound to the registry it was asked for."""
    found = credential(document)

    assert found == Credential("user", "pass:word", "example.com:5000")
    assert found.is_for("example.com:5000")
    assert not found.is_for("example.com")


def test_an_identity_token_is_marked_as_docker_marks_it() -> None:
    """By the user name."""
    assert credential({"auths": {"example.com:5000": {"identitytoken": "refresh"}}}).username == "<token>"


@pytest.mark.parametrize("document", [{**PAIR, "registry": "example.com"}, {"auths": {"example.com": {"auth": AUTH}}}])
def test_a_secret_for_one_registry_is_not_sent_to_another(document: dict[str, Any]) -> None:
    """A caller who names somebody else's host gets nothing sent there."""
    with pytest.raises(SecretMalformed, match=r"evil\.example"):
        credential(document, "evil.example")


def test_a_secret_runs_no_program() -> None:
    """Credential helpers are for the node's own configuration."""
    with pytest.raises(SecretMalformed, match="nothing for registry"):
        credential(
            {"auths": {"a.example": {"auth": AUTH}}, "credsStore": "evil", "credHelpers": {"example.com": "evil"}}
        )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3cret",
        '"s3cret"',
        "[]",
        "{}",
        '{"username": "s3cret"}',
        '{"password": "s3cret"}',
        '{"username": "", "password": "s3cret"}',
        '{"username": "s3cret", "password": 7}',
        '{"username": ["s3cret"], "password": "s3cret"}',
        '{"username": "s3cret", "password": "s3cret"',
        '{"username": "u", "password": "s3cret", "registry": "s3cret"}',
        '{"auths": "s3cret"}',
        '{"auths": {}}',
        '{"auths": {"s3cret": {"auth": "czNjcmV0"}}}',
        '{"auths": {"example.com:5000": {"auth": "s3cret"}}}',
        '{"auths": {"example.com:5000": {"auth": 7}}}',
        '{"auths": {"example.com:5000": {"username": "s3cret"}}}',
        "[" * 100_000,
    ],
)
def test_what_is_no_secret_is_refused_without_a_word_of_it(text: str) -> None:
    """Neither the message nor the traceback quotes it."""
    with pytest.raises(SecretMalformed) as caught:
        Secret.parse(text).credential("example.com:5000")

    assert "s3cret" not in "".join(traceback.format_exception(caught.value)).replace(text[:200], "")


def test_a_secret_is_not_printed() -> None:
    """As a credential is not."""
    assert "s3cret" not in repr(Secret({"password": "s3cret"}))
