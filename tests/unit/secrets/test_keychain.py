# SPDX-License-Identifier: Apache-2.0
"""Secrets in a key store, through the real keyring with a store of this test's own."""

import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked
from typing_extensions import override

from worker.errors import InvalidArgument, SecretsUnavailable
from worker.puller import Credential
from worker.secrets import Secrets, make_secrets
from worker.secrets.keychain import SERVICE
from worker.settings import Settings


class Chain(KeyringBackend):
    """A key store in memory that can be locked, or ask a person who is not there."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[tuple[str, str], str] = {}
        self.is_locked = False
        self.person = threading.Event()
        self.person.set()

    @override
    def get_password(self, service: str, username: str) -> str | None:
        self.person.wait(20)
        if self.is_locked:
            raise KeyringLocked("s3cret")
        return self.entries.get((service, username))

    @override
    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password


@pytest.fixture
def chain() -> Iterator[Chain]:
    """The key store that keyring uses."""
    before, chain = keyring.get_keyring(), Chain()
    keyring.set_keyring(chain)
    yield chain
    chain.person.set()
    keyring.set_keyring(before)


@pytest.fixture
def secrets(tmp_path: Path, chain: Chain) -> Secrets:
    """The secrets of a node that has them there."""
    keyring.set_password(SERVICE, "team-a", '{"username": "u", "password": "p"}')
    return make_secrets(settings_of(tmp_path))


def settings_of(tmp_path: Path) -> Settings:
    """Return settings with the one resolver."""
    more = {"secrets_resolvers": ("keyring",), "credential_helper_timeout_seconds": 0.5}
    return Settings(work_dir=tmp_path, store_dir=tmp_path, **more)


def test_an_entry_is_a_secret(secrets: Secrets) -> None:
    """Its password is the JSON."""
    assert secrets.credential("team-a", registry="r") == Credential("u", "p", "r")


def test_a_store_that_is_locked_or_asks_a_person_may_answer_later(secrets: Secrets, chain: Chain) -> None:
    """A worker's slot does not wait for either; what the store says is not told."""
    chain.is_locked = True
    with pytest.raises(SecretsUnavailable, match="KeyringLocked") as caught:
        secrets.credential("team-a", registry="r")
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    chain.is_locked = False
    chain.person.clear()
    with pytest.raises(SecretsUnavailable, match=r"no answer within 0\.5 s"):
        secrets.credential("team-a", registry="r")
    chain.person.set()

    assert secrets.credential("team-a", registry="r").username == "u"


def test_without_the_extra_a_node_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At start, if it is to use it."""
    monkeypatch.setitem(sys.modules, "keyring", None)

    with pytest.raises(InvalidArgument, match=r"pip install rootfs-provisioner\[keyring\]"):
        make_secrets(settings_of(tmp_path))
