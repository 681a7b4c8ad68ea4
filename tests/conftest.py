# SPDX-License-Identifier: Apache-2.0
"""What every test may ask for: real servers, and what a marked test needs to run at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.mounts import mounts_below, unmount
from tests.support.needs import NEEDS, is_ci
from tests.support.redis_server import Kind, RedisServer, default_kind, redis_server
from tests.support.registry_server import Registry, registry_server


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of the server under the tests."""
    parser.addoption("--redis-kind", choices=["redis-server", "valkey"], help="server of the redis tests")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose need is missing; fail it where CI=true, so that no check goes missing unseen."""
    for marker, missing in NEEDS.items():
        if item.get_closest_marker(marker) is None or (reason := missing()) is None:
            continue
        if is_ci():
            pytest.fail(f"CI lacks what the marker {marker!r} needs: {reason}", pytrace=False)
        pytest.skip(f"{marker}: {reason}")


@pytest.fixture(autouse=True)
def _no_mounts_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a mount below its directory, and take the mount down for the sake of the others."""
    if "tmp_path" not in request.fixturenames:
        yield
        return
    directory: Path = request.getfixturevalue("tmp_path")
    yield
    left = mounts_below(directory)
    unmount(left)
    assert not left, f"mounts left behind: {left}"


@pytest.fixture(scope="session")
def redis_kind(request: pytest.FixtureRequest) -> Kind:
    """The server to test with: as asked for, else Debian's, else the one in the wheel."""
    return request.config.getoption("--redis-kind") or default_kind()


@pytest.fixture(scope="session")
def shared_redis_server(tmp_path_factory: pytest.TempPathFactory, redis_kind: Kind) -> Iterator[RedisServer]:
    """One server for all tests that neither stop it nor look at other tests' keys."""
    with redis_server(tmp_path_factory.mktemp("redis"), kind=redis_kind) as server:
        yield server


@pytest.fixture
def redis_client(shared_redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of the shared server, emptied; answers are bytes."""
    with shared_redis_server.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def redis_url(shared_redis_server: RedisServer, redis_client: redis.Redis) -> str:
    """The URL of the shared server, emptied."""
    return shared_redis_server.url


@pytest.fixture
def own_redis_server(tmp_path: Path, redis_kind: Kind) -> Iterator[RedisServer]:
    """A server of this test's own, with persistence, to stop, kill and restart."""
    directory = tmp_path / "redis"
    directory.mkdir()
    with redis_server(directory, kind=redis_kind, appendonly=True) as server:
        yield server


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One registry for all tests; each pushes to a repository of its own name."""
    with registry_server(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="session")
def private_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One registry that wants USERNAME and PASSWORD of `tests.support.registry_server`."""
    with registry_server(tmp_path_factory.mktemp("private-registry"), has_password=True) as server:
        yield server
