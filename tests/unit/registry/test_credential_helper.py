# SPDX-License-Identifier: Apache-2.0
"""The protocol of credential helpers; what is done with their answers see `test_docker_config`."""

from pathlib import Path

import pytest

from worker.registry.auth import Login
from worker.registry.credential_helper import HelperFailed, ask_helper


@pytest.mark.parametrize(
    ("script", "login"),
    [
        ('echo \'{"Username": "u", "Secret": "s", "ServerURL": "x"}\'', Login("u", "s")),
        ('echo \'{"Username": "", "Secret": ""}\'', None),
        ("echo 'credentials not found in native keychain'; exit 1", None),
        (
            '[ "$1" = get ] && [ "$(cat)" = host:1 ] && echo \'{"Username": "<token>", "Secret": "t"}\'',
            Login(identity_token="t"),  # noqa: S106 - of no server
        ),
        ('exec 0<&-; echo \'{"Username": "u", "Secret": "s"}\'', Login("u", "s")),
    ],
)
def test_a_helper_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, login: Login | None) -> None:
    """Or has nothing, which some say with an empty answer; one need not read what it is asked."""
    program = tmp_path / "docker-credential-t"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    assert ask_helper("t", "host:1", timeout_seconds=20) == login


def test_a_file_that_is_no_program_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's word for it is told."""
    program = tmp_path / "docker-credential-t"
    program.write_bytes(b"\0\0")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(HelperFailed, match="docker-credential-t does not start"):
        ask_helper("t", "host", timeout_seconds=20)
