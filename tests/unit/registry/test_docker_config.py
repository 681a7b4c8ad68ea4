# SPDX-License-Identifier: Apache-2.0
"""Docker's configuration, with credential helpers that really run."""

import base64
import json
import logging
import os
import traceback
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import wait_until
from worker.errors import InvalidArgument, RegistryUnavailable
from worker.registry.auth import Login
from worker.registry.docker_config import config_fingerprint, docker_login

AUTH = base64.b64encode(b"user:pass:word").decode()
LOGIN = Login(username="user", password="pass:word")  # noqa: S106 - of no server


def write_config(directory: Path, document: Any) -> Path:
    """Write Docker's configuration and return its directory."""
    directory.mkdir(exist_ok=True)
    text = document if isinstance(document, str) else json.dumps(document)
    (directory / "config.json").write_text(text)
    return directory


@pytest.fixture
def helper_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on the path, for credential helpers."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    return directory


def write_helper(helper_dir: Path, name: str, script: str) -> None:
    """Write a credential helper."""
    path = helper_dir / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("registry", "key"),
    [
        ("example.com", "example.com"),
        ("example.com:5000", "example.com:5000"),
        ("example.com", "https://example.com/v2/"),
        ("docker.io", "https://index.docker.io/v1/"),
    ],
)
def test_a_login_is_found_under_each_of_dockers_spellings(tmp_path: Path, registry: str, key: str) -> None:
    """Docker has written them in several ways over the years."""
    config_dir = write_config(tmp_path, {"auths": {key: {"auth": AUTH}}})

    assert docker_login(registry, config_dir=config_dir) == LOGIN


def test_a_login_is_for_its_own_registry_only(tmp_path: Path) -> None:
    """Neither for a sibling host nor for another port."""
    config_dir = write_config(tmp_path, {"auths": {"example.com": {"auth": AUTH}, "a.example:5000": {"auth": AUTH}}})

    assert docker_login("www.example.com", config_dir=config_dir) is None
    assert docker_login("a.example:5001", config_dir=config_dir) is None
    assert docker_login("docker.io", config_dir=config_dir) is None


def test_an_identity_token_is_one(tmp_path: Path) -> None:
    """It is exchanged for tokens instead of a password."""
    entry = {"auth": AUTH, "identitytoken": "refresh"}
    config_dir = write_config(tmp_path, {"auths": {"example.com": entry}})

    assert docker_login("example.com", config_dir=config_dir) == Login(identity_token="refresh")  # noqa: S106


@pytest.mark.parametrize("document", [{}, {"auths": {}}, {"auths": {"example.com": {}}}, {"HttpHeaders": {"a": "b"}}])
def test_a_configuration_without_the_registry_knows_nobody(tmp_path: Path, document: dict[str, Any]) -> None:
    """Then the pull is anonymous."""
    assert docker_login("example.com", config_dir=write_config(tmp_path, document)) is None


def test_no_configuration_knows_nobody(tmp_path: Path) -> None:
    """A configured directory is not made up for by the home directory's."""
    assert docker_login("example.com", config_dir=tmp_path) is None


def test_dockers_own_rule_finds_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a configured directory."""
    config_dir = write_config(tmp_path, {"auths": {"example.com": {"auth": AUTH}}})
    monkeypatch.setenv("DOCKER_CONFIG", str(config_dir))

    assert docker_login("example.com", config_dir=None) == LOGIN


def test_a_credential_helper_is_asked(tmp_path: Path, helper_dir: Path) -> None:
    """By the name the registry has for it."""
    write_helper(helper_dir, "t", 'read server; echo "{\\"Username\\": \\"user\\", \\"Secret\\": \\"for $server\\"}"')
    config_dir = write_config(tmp_path / "docker", {"credHelpers": {"example.com": "t"}})

    expected = Login(username="user", password="for example.com")  # noqa: S106 - of no server
    assert docker_login("example.com", config_dir=config_dir) == expected
    assert docker_login("other.example", config_dir=config_dir) is None


def test_a_credential_helper_may_have_an_identity_token(tmp_path: Path, helper_dir: Path) -> None:
    """Docker marks it by the user name."""
    write_helper(helper_dir, "t", 'echo \'{"Username": "<token>", "Secret": "refresh"}\'')
    config_dir = write_config(tmp_path / "docker", {"credsStore": "t"})

    assert docker_login("docker.io", config_dir=config_dir) == Login(identity_token="refresh")  # noqa: S106


def test_a_credential_helper_may_not_know_the_registry(tmp_path: Path, helper_dir: Path) -> None:
    """Then the pull is anonymous."""
    write_helper(helper_dir, "t", 'echo "credentials not found in native keychain"; exit 1')
    config_dir = write_config(tmp_path / "docker", {"credsStore": "t"})

    assert docker_login("example.com", config_dir=config_dir) is None


@pytest.mark.parametrize("script", ["echo s3cret; exit 1", "echo s3cret", 'echo \'{"Username": "s3cret"}\''])
def test_a_broken_credential_helper_is_an_error_that_tells_no_secret(
    tmp_path: Path, helper_dir: Path, script: str
) -> None:
    """What a helper prints may be the credential itself."""
    write_helper(helper_dir, "t", script)
    config_dir = write_config(tmp_path / "docker", {"credsStore": "t"})

    with pytest.raises(InvalidArgument, match=r"docker-credential-t (ended with|does not answer as)") as caught:
        docker_login("example.com", config_dir=config_dir)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("script", ["exec sleep 1000", "sleep 1000 & wait", "trap '' TERM; sleep 1000 & sleep 1000"])
def test_a_credential_helper_that_hangs_is_given_up_on(tmp_path: Path, helper_dir: Path, script: str) -> None:
    """With all that it started; a retry may find it awake."""
    write_helper(helper_dir, "t", f"echo $$ > {tmp_path}/pid; {script}")
    config_dir = write_config(tmp_path / "docker", {"credsStore": "t"})

    with pytest.raises(RegistryUnavailable, match=r"docker-credential-t gives no answer within 0\.5 s"):
        docker_login("example.com", config_dir=config_dir, helper_timeout_seconds=0.5)

    group = int((tmp_path / "pid").read_text())
    wait_until(lambda: not is_alive(group), "the end of the helper's group")


def is_alive(group: int) -> bool:
    """Tell whether a process of the group is left; a dead one that nobody has reaped yet counts."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_configuration_has_another_fingerprint_after_each_change(tmp_path: Path) -> None:
    """By what it holds, not by when it was written; none has one too."""
    absent = config_fingerprint(tmp_path)
    write_config(tmp_path, {"auths": {}})
    first = config_fingerprint(tmp_path)
    write_config(tmp_path, {"auths": {"example.com": {"auth": AUTH}}})
    second = config_fingerprint(tmp_path)
    write_config(tmp_path, {"auths": {}})

    assert config_fingerprint(tmp_path) == first
    assert len({absent, first, second}) == 3


def test_a_missing_credential_helper_is_named(tmp_path: Path, helper_dir: Path) -> None:
    """With the file that asks for it."""
    config_dir = write_config(tmp_path / "docker", {"credsStore": "absent"})

    assert helper_dir.is_dir()
    with pytest.raises(InvalidArgument, match="docker-credential-absent is not installed") as caught:
        docker_login("example.com", config_dir=config_dir)
    assert str(config_dir / "config.json") in str(caught.value)


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{",
        "s3cret",
        "[]",
        "[" * 100_000,
        {"auths": ["s3cret"]},
        {"auths": {"example.com": "s3cret"}},
        {"auths": {"example.com": {"auth": "s3cret"}}},
        {"auths": {"example.com": {"auth": 7}}},
        {"auths": {"example.com": {"auth": base64.b64encode(b"s3cret").decode()}}},
        {"auths": {"example.com": {"auth": base64.b64encode(b"s3cret:\xff").decode()}}},
        {"credHelpers": ["s3cret"]},
    ],
)
def test_a_broken_configuration_is_an_error_that_names_the_file(tmp_path: Path, document: Any) -> None:
    """Passed over, it would only show as access denied to some images; told, it tells no credential."""
    config_dir = write_config(tmp_path, document)

    with pytest.raises(InvalidArgument, match="invalid Docker configuration") as caught:
        docker_login("example.com", config_dir=config_dir)
    assert str(config_dir / "config.json") in str(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_configuration_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A directory in its place, for one."""
    (tmp_path / "config.json").mkdir()

    with pytest.raises(InvalidArgument, match="Is a directory"):
        docker_login("example.com", config_dir=tmp_path)


def test_user_names_are_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As Docker's SDK would at DEBUG."""
    auth = base64.b64encode(b"s3cret-user:s3cret-pass").decode()
    config_dir = write_config(tmp_path, {"auths": {"example.com": {"auth": auth}}})

    with caplog.at_level(logging.DEBUG):
        assert docker_login("example.com", config_dir=config_dir)
    assert "s3cret" not in caplog.text
