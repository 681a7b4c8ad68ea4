# SPDX-License-Identifier: Apache-2.0
"""Secrets in variables."""

from pathlib import Path

import pytest

from worker.puller import Credential
from worker.secrets.environment import EnvironmentResolver
from worker.settings import Settings, environment_secret


def test_a_variable_bears_the_name_in_upper_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an underscore for a hyphen, which no shell lets stand in a name."""
    monkeypatch.setenv("PROVISIONER_SECRET_TEAM_A", '{"username": "u", "password": "p"}')
    resolver = EnvironmentResolver(Settings(work_dir=tmp_path, store_dir=tmp_path))

    for name in ("team-a", "TEAM_A"):
        secret = resolver.find(name)
        assert secret is not None
        assert secret.credential("r") == Credential("u", "p", "r")
    assert resolver.find("team-b") is None


def test_no_name_reaches_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """`PROVISIONER_SECRETS_DIR` and its like are no secrets."""
    monkeypatch.setenv("PROVISIONER_SECRETS_DIR", "/s")
    clashing = [
        name for name in Settings.model_fields if f"PROVISIONER_{name}".upper().startswith("PROVISIONER_SECRET_")
    ]

    assert clashing == []
    assert environment_secret("s_dir") is environment_secret("_dir") is None
