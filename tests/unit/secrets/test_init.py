# SPDX-License-Identifier: Apache-2.0
"""Secrets of a node, in all the places where they can be."""

import traceback
from pathlib import Path

import pytest

from worker.errors import InvalidArgument, SecretNotFound
from worker.puller import Credential
from worker.secrets import Secrets, make_secrets
from worker.settings import Settings


def secrets_of(tmp_path: Path, *resolvers: str, secrets_dir: Path | None = None) -> Secrets:
    """Return the secrets of a node with these resolvers."""
    settings = Settings(work_dir=tmp_path, store_dir=tmp_path, secrets_dir=secrets_dir, secrets_resolvers=resolvers)
    return make_secrets(settings)


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "/etc/passwd", "a.json", ".a", "-a", "a\0", "a\n", "ä"])
def test_a_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    """Before any place is asked for it."""
    (tmp_path / "a").write_text('{"username": "u", "password": "p"}')

    with pytest.raises(SecretNotFound, match="a name must match"):
        secrets_of(tmp_path, "directory", secrets_dir=tmp_path).credential(name, registry="r")


def test_the_first_place_that_has_the_name_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the settings' order; a later place is asked for what an earlier one does not have."""
    (tmp_path / "both").write_text('{"username": "u", "password": "file"}')
    for name in ("BOTH", "ONE"):
        monkeypatch.setenv(f"PROVISIONER_SECRET_{name}", '{"username": "u", "password": "variable"}')

    for order, expected in ((("directory", "environment"), "file"), (("environment", "directory"), "variable")):
        secrets = secrets_of(tmp_path, *order, secrets_dir=tmp_path)
        assert secrets.credential("both", registry="r") == Credential("u", expected, "r")
        assert secrets.credential("one", registry="r") == Credential("u", "variable", "r")


def test_what_an_earlier_place_has_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret of the same name elsewhere may be another's; the error names the place and tells nothing of it."""
    (tmp_path / "both").write_text("s3cret")
    monkeypatch.setenv("PROVISIONER_SECRET_BOTH", '{"username": "u", "password": "p"}')

    with pytest.raises(SecretNotFound, match=f"secret 'both' .* directory {tmp_path}: it is not JSON") as caught:
        secrets_of(tmp_path, "directory", "environment", secrets_dir=tmp_path).credential("both", registry="r")

    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_name_nobody_has_is_told_with_the_places(tmp_path: Path) -> None:
    """The operator sees what was looked at, and what to set."""
    with pytest.raises(SecretNotFound, match=rf"'absent' .* not in directory {tmp_path}, the environment$"):
        secrets_of(tmp_path, "directory", "environment", secrets_dir=tmp_path).credential("absent", registry="r")
    with pytest.raises(SecretNotFound, match="PROVISIONER_SECRETS_DIR"):
        secrets_of(tmp_path, "directory").credential("absent", registry="r")
    with pytest.raises(SecretNotFound, match="PROVISIONER_SECRETS_RESOLVERS"):
        secrets_of(tmp_path).credential("absent", registry="r")


def test_a_resolver_that_does_not_exist_is_refused_at_start(tmp_path: Path) -> None:
    """With those that do."""
    with pytest.raises(InvalidArgument, match="SECRETS_RESOLVERS 'vault': there are directory, environment, redis"):
        secrets_of(tmp_path, "directory", "vault")


def test_a_credential_is_not_printed() -> None:
    """Wherever it ends up in a message or a log."""
    assert "s3cret" not in repr(Credential("s3cret-user", "s3cret-pass"))
