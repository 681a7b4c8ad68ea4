# SPDX-License-Identifier: Apache-2.0
"""Odd servers, and a client that records its waits instead of waiting."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.registry.odd_server import OddServer, odd_server
from worker.registry.client import RegistryClient
from worker.settings import Settings


@pytest.fixture
def server() -> Iterator[OddServer]:
    """The registry."""
    with odd_server() as running:
        yield running


@pytest.fixture
def other_server() -> Iterator[OddServer]:
    """Another host: another port of the same address is another origin."""
    with odd_server() as running:
        yield running


@pytest.fixture
def waits() -> list[float]:
    """What the client waited, in seconds."""
    return []


@pytest.fixture
def client(tmp_path: Path, waits: list[float]) -> Iterator[RegistryClient]:
    """A client with three tries and small bounds."""
    settings = Settings(
        work_dir=tmp_path, store_dir=tmp_path, registry_attempts=3, registry_timeout_seconds=5, max_manifest_bytes=65536
    )
    running = RegistryClient(settings, sleep=waits.append)
    yield running
    running.close()
