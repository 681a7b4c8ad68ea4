# SPDX-License-Identifier: Apache-2.0
"""Secrets of the node."""

import json
import traceback
from pathlib import Path

import pytest

from worker.errors import SecretNotFound
from worker.puller import Credential
from worker.secrets import load_secret
from worker.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a directory of secrets."""
    secrets_dir = tmp_path / "secrets"
    secrets_dir.mkdir()
    return Settings(work_dir=tmp_path, store_dir=tmp_path, secrets_dir=secrets_dir)


def write_secret(settings: Settings, name: str, text: str) -> None:
    """Write a file into the directory of secrets."""
    assert settings.secrets_dir is not None
    (settings.secrets_dir / name).write_text(text)


def test_a_secret_is_read_by_name(settings: Settings) -> None:
    """Members beside the two are no error."""
    write_secret(settings, "team-a_1", json.dumps({"username": "u", "password": "p", "note": "x"}))

    assert load_secret(settings, "team-a_1") == Credential("u", "p")


def test_a_secret_is_read_anew_each_time(settings: Settings) -> None:
    """So that it can be changed under a running worker."""
    write_secret(settings, "a", '{"username": "u", "password": "old"}')
    load_secret(settings, "a")
    write_secret(settings, "a", '{"username": "u", "password": "new"}')

    assert load_secret(settings, "a").password == "new"  # noqa: S105 - of no server


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "/etc/passwd", "a.json", ".a", "-a", "a\0", "a\n", "ä"])
def test_a_name_cannot_leave_the_directory(settings: Settings, name: str) -> None:
    """A task's word is never a path."""
    write_secret(settings, "a", '{"username": "u", "password": "p"}')

    with pytest.raises(SecretNotFound, match="a name must match"):
        load_secret(settings, name)


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
        "[" * 100_000,
    ],
)
def test_a_malformed_secret_is_refused_without_a_word_of_it(settings: Settings, text: str) -> None:
    """Neither the message nor the traceback quotes the file."""
    write_secret(settings, "a", text)

    with pytest.raises(SecretNotFound, match="secret 'a' cannot be used on this node") as caught:
        load_secret(settings, "a")
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_missing_secret_says_so(settings: Settings) -> None:
    """By the name the task gave it."""
    with pytest.raises(SecretNotFound, match=r"secret 'absent' .* No such file"):
        load_secret(settings, "absent")


def test_a_directory_is_no_secret(settings: Settings) -> None:
    """It cannot be read."""
    assert settings.secrets_dir is not None
    (settings.secrets_dir / "a").mkdir()

    with pytest.raises(SecretNotFound, match="Is a directory"):
        load_secret(settings, "a")


def test_a_node_without_secrets_names_the_setting(tmp_path: Path) -> None:
    """The operator then knows what to set."""
    with pytest.raises(SecretNotFound, match="PROVISIONER_SECRETS_DIR"):
        load_secret(Settings(work_dir=tmp_path, store_dir=tmp_path), "a")


def test_a_credential_is_not_printed() -> None:
    """Wherever it ends up in a message or a log."""
    assert "s3cret" not in repr(Credential("s3cret-user", "s3cret-pass"))
