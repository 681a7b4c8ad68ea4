# SPDX-License-Identifier: Apache-2.0
"""Secrets in files, and in directories as Kubernetes mounts them."""

import base64
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from worker.puller import Credential
from worker.secret import SecretMalformed
from worker.secrets.directory import DirectoryResolver
from worker.settings import Settings

AUTHS = {"auths": {"r": {"auth": base64.b64encode(b"u:p").decode()}}}


def found(directory: Path, name: str = "team-a") -> Credential | None:
    """Look a secret up."""
    settings = Settings(work_dir=directory, store_dir=directory, secrets_dir=directory)
    secret = DirectoryResolver(settings).find(name)
    return None if secret is None else secret.credential("r")


def mount(directory: Path, files: Mapping[str, str]) -> None:
    """Write a secret as the kubelet does: links into a directory that is exchanged as a whole."""
    secret_dir = directory / "team-a"
    data_dir = secret_dir / "..2026_01_01"
    data_dir.mkdir(parents=True)
    (secret_dir / "..data").symlink_to(data_dir.name)
    for name, text in files.items():
        (data_dir / name).write_text(text)
        (secret_dir / name).symlink_to(f"..data/{name}")


def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    """So that it can be changed under a running worker."""
    for password in ("old", "new"):
        (tmp_path / "team-a").write_text(json.dumps({"username": "u", "password": password}))
        assert found(tmp_path) == Credential("u", password, "r")


@pytest.mark.parametrize(
    "files",
    [
        {".dockerconfigjson": json.dumps(AUTHS)},
        {".dockercfg": json.dumps(AUTHS["auths"])},
        {"username": "u", "password": "p"},
        {"username": "u", "password": "p", "registry": "r"},
    ],
)
def test_a_kubernetes_secret_is_a_directory(tmp_path: Path, files: Mapping[str, str]) -> None:
    """Of the types dockerconfigjson, dockercfg and basic-auth."""
    mount(tmp_path, files)

    assert found(tmp_path) == Credential("u", "p", "r")


def test_a_directory_may_say_which_registry_it_is_for(tmp_path: Path) -> None:
    """As a document may."""
    mount(tmp_path, {"username": "u", "password": "p", "registry": "other"})

    with pytest.raises(SecretMalformed, match="not for registry r"):
        found(tmp_path)


@pytest.mark.parametrize("files", [{}, {"username": "u"}, {"token": "t"}])
def test_a_directory_without_them_is_refused(tmp_path: Path, files: Mapping[str, str]) -> None:
    """It says what was looked for."""
    mount(tmp_path, files)

    with pytest.raises(SecretMalformed, match=r"neither \.dockerconfigjson nor username and password"):
        found(tmp_path)


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    """Another place may have it."""
    assert found(tmp_path) is None
    assert DirectoryResolver(Settings(work_dir=tmp_path, store_dir=tmp_path)).find("team-a") is None


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A link that leads to itself, for one."""
    (tmp_path / "team-a").symlink_to("team-a")

    with pytest.raises(SecretMalformed, match="symbolic links"):
        found(tmp_path)


def test_a_directory_that_may_not_be_searched_is_an_error(tmp_path: Path) -> None:
    """There too the resolver says so, and nothing of the operating system's gets out."""
    secrets_dir = tmp_path / "secrets"
    secrets_dir.mkdir(mode=0o600)

    with without_roots_rights(), pytest.raises(SecretMalformed, match="team-a: Permission denied"):
        found(secrets_dir)


@contextmanager
def without_roots_rights() -> Iterator[None]:
    """Be somebody else for a while, if this process is root."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
