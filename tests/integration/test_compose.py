# SPDX-License-Identifier: Apache-2.0
"""compose/ on a real Engine: healthy services, rootfses that the host sees, nothing open to strangers, nothing left."""

import base64
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
import redis

from tests.support.engine import engine_server
from tests.support.images import build_image, layer
from tests.support.layouts import write_layout
from tests.support.mounts import mounts_below
from tests.support.needs import is_ci
from tests.support.ports import wait_until
from tests.support.prometheus_server import Prometheus
from tests.support.schedulers import Scheduler
from tests.support.scraping import Page
from tests.support.stack import FLOWER_LOGIN, REPOSITORY_DIR, SERVICES, Stack, missing_stack, stack
from tests.support.tar import Dir, File, Whiteout
from worker.settings import Settings

COMPOSE_DIR = REPOSITORY_DIR / "compose"


@pytest.fixture(scope="module")
def running_stack() -> Iterator[Stack]:
    """All services, healthy, on an Engine of this module's own."""
    if missing := missing_stack():
        (pytest.fail if is_ci() else pytest.skip)(missing)
    with tempfile.TemporaryDirectory(prefix="compose-") as name:
        engine_dir = Path(name, "engine")
        engine_dir.mkdir()
        with engine_server(engine_dir, storage_driver="overlay2") as engine, stack(Path(name, "host"), engine) as made:
            yield made
        assert mounts_below(Path(name)) == []


@pytest.fixture
def stack_scheduler(running_stack: Stack) -> Iterator[Scheduler]:
    """Stock Celery on the host."""
    made = Scheduler(running_stack.redis_url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def image(running_stack: Stack) -> str:
    """An image of two layers that the worker finds in its directory of images."""
    base = layer(Dir("etc"), File("etc/motd", b"hello"), File("etc/gone", b""))
    built = build_image([base, layer(Whiteout("etc/gone"))])
    return f"oci:{write_layout(running_stack.directory / 'images' / 'two', {'latest': built})}:latest"


@pytest.mark.engine
@pytest.mark.root
def test_every_service_is_healthy(running_stack: Stack) -> None:
    """Redis, worker, beat and Flower pass their own checks."""
    health = running_stack.health()

    assert health == dict.fromkeys(SERVICES, "healthy")


@pytest.mark.engine
@pytest.mark.root
def test_a_rootfs_mounted_in_the_container_is_mounted_on_the_host(
    running_stack: Stack, stack_scheduler: Scheduler, image: str
) -> None:
    """What the worker mounts propagates to the host, under the path in the answer; destroy takes it away there too."""
    info = stack_scheduler.call("provision", container_id="seen", image=image)

    rootfs = Path(info["rootfs"])
    assert str(rootfs) in mounts_below(running_stack.directory / "work")
    assert (rootfs / "etc/motd").read_bytes() == b"hello"
    assert not (rootfs / "etc/gone").exists()

    assert stack_scheduler.call("destroy", container_id="seen") is True

    assert str(rootfs) not in mounts_below(running_stack.directory / "work")
    assert not rootfs.exists()


@pytest.mark.engine
@pytest.mark.root
def test_a_rootfs_outlives_the_worker_that_made_it(
    running_stack: Stack, stack_scheduler: Scheduler, image: str
) -> None:
    """A new worker container, as after an upgrade, finds the mount with what was written, and can destroy it."""
    rootfs = Path(stack_scheduler.call("provision", container_id="kept", image=image)["rootfs"])
    (rootfs / "mark").write_text("written on the host", encoding="utf-8")
    first = running_stack.container_id("worker")

    running_stack.up("--force-recreate", "--no-deps", "worker")

    assert running_stack.container_id("worker") != first
    assert (rootfs / "mark").read_text(encoding="utf-8") == "written on the host"
    assert stack_scheduler.call("provision", container_id="kept", image=image)["rootfs"] == str(rootfs)
    assert stack_scheduler.call("destroy", container_id="kept") is True
    assert str(rootfs) not in mounts_below(running_stack.directory / "work")


@pytest.mark.engine
@pytest.mark.root
def test_redis_keeps_all_it_is_given_and_wants_its_password(running_stack: Stack) -> None:
    """No eviction, every write on disk before its reply, and no stranger."""
    url = running_stack.redis_url

    with redis.Redis.from_url(url, decode_responses=True) as client:
        settings = {name: client.config_get(name)[name] for name in ("maxmemory-policy", "appendonly", "appendfsync")}
    with redis.Redis.from_url(re.sub(r"//.*@", "//", url)) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()

    assert settings == {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "always"}


@pytest.mark.engine
@pytest.mark.root
def test_other_services_read_the_workers_metrics(running_stack: Stack) -> None:
    """As Prometheus would, at the address that its configuration names."""
    target = re.search(r'targets: \["(.+)"\]', (COMPOSE_DIR / "prometheus.yml").read_text(encoding="utf-8"))
    assert target is not None
    read = f"import urllib.request; print(urllib.request.urlopen('http://{target[1]}/metrics').read().decode())"

    page = Page(running_stack.compose("exec", "-T", "flower", "python3", "-c", read))

    assert page.value("redis_up") == 1
    assert page.value("cluster_nodes", state="live") == 1


@pytest.fixture
def prometheus(running_stack: Stack) -> Iterator[Prometheus]:
    """The stack's Prometheus; Debian's has no check of its own health, so it is not waited for."""
    server = Prometheus(running_stack.prometheus_port)
    try:
        running_stack.compose("--profile", "monitoring", "up", "--detach", "--no-build", "prometheus")
        wait_until(server.is_ready, "start of Prometheus", seconds=60)
        yield server
    finally:
        running_stack.compose("--profile", "monitoring", "rm", "--stop", "--force", "prometheus")


@pytest.mark.engine
@pytest.mark.root
@pytest.mark.prometheus
def test_prometheus_reads_the_worker(prometheus: Prometheus) -> None:
    """With the configuration, the user and the closed file system it has in compose.yaml."""
    wait_until(lambda: bool(prometheus.query('up{job="provisioner"} == 1')), "a scrape", seconds=60)

    assert prometheus.query("provisioner_redis_up == 1")
    assert prometheus.query('provisioner_cluster_nodes{state="live"} == 1')
    assert prometheus.query('ALERTS{alertstate="firing"}') == []


@pytest.mark.engine
@pytest.mark.root
def test_monitoring_is_one_profile_bound_to_loopback(running_stack: Stack) -> None:
    """Compose itself reads the two services that run only when they are asked for."""
    compose = (COMPOSE_DIR / "compose.yaml").read_text(encoding="utf-8")

    services = running_stack.compose("--profile", "monitoring", "config", "--services").split()

    assert set(services) == {*SERVICES, "prometheus", "grafana"}
    assert set(running_stack.health()) == set(SERVICES)
    published = re.findall(r'ports: \["([^"]+):(\d+)"\]', compose)
    assert [port for address, port in published if address.startswith("127.0.0.1:")] == ["5555", "9090", "3000"]


@pytest.mark.engine
@pytest.mark.root
def test_flower_asks_who_is_there(running_stack: Stack) -> None:
    """Without the login 401; with it the page of tasks."""
    login = {"Authorization": f"Basic {base64.b64encode(FLOWER_LOGIN.encode()).decode()}"}

    refusal, _ = _get("/tasks", port=running_stack.flower_port, headers={})
    status, page = _get("/tasks", port=running_stack.flower_port, headers=login)

    assert refusal == 401
    assert status == 200
    assert 'data-column="kwargs"' in page


def test_every_setting_of_the_example_is_one() -> None:
    """A variable in env.example is a field of Settings or stands in compose.yaml; a misspelt one would do nothing."""
    example = (COMPOSE_DIR / "env.example").read_text(encoding="utf-8")
    compose = (COMPOSE_DIR / "compose.yaml").read_text(encoding="utf-8")

    offered = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))

    settings = {f"PROVISIONER_{name.upper()}" for name in Settings.model_fields}
    used = set(re.findall(r"\$\{([A-Z_]+)", compose)) | {"COMPOSE_PROJECT_NAME"}
    assert offered - settings - used == set()
    assert {"REDIS_PASSWORD", "FLOWER_BASIC_AUTH", "PROVISIONER_NODE"} <= offered


def _get(path: str, *, port: int, headers: Mapping[str, str]) -> tuple[int, str]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
