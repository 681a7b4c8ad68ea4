# SPDX-License-Identifier: Apache-2.0
"""compose/'s dashboard and Prometheus configuration fit what a worker really exports."""

import json
import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_metrics import MonitoredNode, monitored_node
from tests.support.ports import wait_until
from tests.support.prometheus_server import Prometheus, prometheus_server
from tests.support.provisioners import make_settings, small_layout
from tests.support.redis_server import RedisServer
from tests.support.schedulers import Scheduler
from tests.support.scraping import scrape
from worker.runtime import make_monitor, make_provisioner

COMPOSE_DIR = Path(__file__).resolve().parents[2] / "compose"
METRIC = re.compile(r"\bprovisioner_[a-z_]+")


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    document: dict[str, Any] = json.loads((COMPOSE_DIR / "grafana" / "dashboard.json").read_bytes())
    return document


def panels() -> list[dict[str, Any]]:
    """Return what shows something; rows are only headings."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    """Return every panel's expressions, and the metric of the variable."""
    definitions = " ".join(each["definition"] for each in dashboard()["templating"]["list"])
    variables = re.findall(r"label_values\((\w+),", definitions)
    return [target["expr"] for panel in panels() for target in panel["targets"]] + variables


def as_grafana_sends(expression: str) -> str:
    """Fill in the variables: all workers, and a time of some scrapes."""
    return expression.replace("$instance", ".*").replace("$__rate_interval", "5m")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, shared_redis_server: RedisServer) -> set[str]:
    """The names of everything on the page of a node that has just been put together."""
    settings = make_settings(tmp_path_factory.mktemp("node"), shared_redis_server.url, metrics_port=None)
    make_provisioner(settings)
    monitor = make_monitor(settings)
    try:
        return scrape(monitor.port).names
    finally:
        monitor.close()


@pytest.mark.redis
def test_every_metric_of_the_dashboard_is_exported(exported: set[str]) -> None:
    """A panel with a misspelt or a renamed metric would be empty, which looks like peace."""
    used = {name for expression in expressions() for name in METRIC.findall(expression)}

    assert used - exported == set()


@pytest.mark.redis
def test_every_exported_metric_is_on_the_dashboard(exported: set[str]) -> None:
    """What nobody shows nobody sees; a histogram is shown by its buckets."""
    used = {name for expression in expressions() for name in METRIC.findall(expression)}
    derived = ("_count", "_sum", "_filesystem_free_inodes")

    assert {name for name in exported if not name.endswith(derived)} - used == set()


def test_panels_lie_beside_each_other_and_name_the_provisioned_source() -> None:
    """None covers another, each has an id of its own and says what it shows."""
    source = re.search(r"uid: (\S+)", (COMPOSE_DIR / "grafana" / "datasources.yaml").read_text(encoding="utf-8"))
    assert source is not None
    taken: set[tuple[int, int]] = set()

    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
    for panel in panels():
        assert panel["description"], panel["title"]
        assert {each["datasource"]["uid"] for each in panel["targets"]} == {source[1]}, panel["title"]


@pytest.mark.prometheus
def test_prometheus_accepts_the_configuration() -> None:
    """Its own checker reads it; the target is the worker's port of compose.yaml."""
    answer = subprocess.run(
        ["promtool", "check", "config", COMPOSE_DIR / "prometheus.yml"], capture_output=True, text=True, check=False
    )

    assert answer.returncode == 0, answer.stdout + answer.stderr
    compose = (COMPOSE_DIR / "compose.yaml").read_text(encoding="utf-8")
    port = re.search(r"PROVISIONER_METRICS_PORT: (\d+)", compose)
    assert port is not None
    assert f'"worker:{port[1]}"' in (COMPOSE_DIR / "prometheus.yml").read_text(encoding="utf-8")


@pytest.mark.prometheus
def test_alerts_fire_when_they_should_and_not_before() -> None:
    """Prometheus' own evaluation of made-up series: all well, briefly not, and all wrong; no alert is left out."""
    cases = Path(__file__).with_name("alerts.test.yml")
    answer = subprocess.run(["promtool", "test", "rules", cases], capture_output=True, text=True, check=False)

    assert answer.returncode == 0, answer.stdout + answer.stderr
    fired = re.findall(r"alertname: (\w+)\n\s+eval_time: \w+\n\s+exp_alerts:", cases.read_text(encoding="utf-8"))
    assert fired == re.findall(r"- alert: (\w+)", alerts())


@pytest.mark.redis
def test_every_metric_of_the_alerts_is_exported(exported: set[str]) -> None:
    """An alert about nothing is silent."""
    assert set(METRIC.findall(alerts())) - exported == set()


def alerts() -> str:
    """Return compose/'s alerts."""
    return (COMPOSE_DIR / "alerts.yml").read_text(encoding="utf-8")


@pytest.fixture
def busy_node(tmp_path: Path, own_redis_server: RedisServer) -> Iterator[MonitoredNode]:
    """A worker with a pool of processes."""
    with monitored_node("n1", tmp_path / "n1", own_redis_server.url) as node:
        yield node


@pytest.fixture
def prometheus(tmp_path: Path, busy_node: MonitoredNode) -> Iterator[Prometheus]:
    """A server that has read that worker before it does anything."""
    with prometheus_server(tmp_path / "prometheus", [busy_node.port]) as server:
        wait_until(lambda: bool(server.query("provisioner_info")), "the first scrape")
        yield server


@pytest.mark.prometheus
@pytest.mark.root
@pytest.mark.redis
def test_every_panel_shows_something_in_a_real_prometheus(
    tmp_path: Path, busy_node: MonitoredNode, prometheus: Prometheus, scheduler: Scheduler
) -> None:
    """After each verb, and errors, no expression is refused and none has nothing to show."""
    work(scheduler, tmp_path)
    wait_until(lambda: values(prometheus, "provisioner_image_pull_seconds_count") == [2.0], "the last scrape")

    empty = [each for each in expressions() if not values(prometheus, as_grafana_sends(each))]

    # No backend has failed to take anything down.
    assert [each for each in empty if "remove_rootfs_errors" not in each] == []
    assert values(prometheus, "provisioner_image_lookups_total{result='hit'}") == [1.0]
    errors = "increase(provisioner_errors_total{error='ImageNotFound'}[5m]) > 0"
    assert len(values(prometheus, errors)) == 1, "the first error of a class is an increase"


def values(prometheus: Prometheus, expression: str) -> list[float]:
    """Return what an expression shows now; a quantile of nothing is none."""
    numbers = [float(series["value"][1]) for series in prometheus.query(expression)]
    return [number for number in numbers if not math.isnan(number)]


def work(scheduler: Scheduler, directory: Path) -> None:
    """Let a node do each verb, and fail at one."""
    image = small_layout(directory / "layout")
    for container_id in ("c1", "c2"):
        scheduler.call("provision", container_id=container_id, image=image)
    with pytest.raises(Exception, match="not found"):
        scheduler.call("provision", container_id="c3", image=f"oci:{directory / 'nowhere'}")
    scheduler.call("verify", node="n1")
    for container_id in ("c1", "c2"):
        scheduler.call("destroy", container_id=container_id)
    scheduler.call("prune", node="n1")
    scheduler.call("pull", image=small_layout(directory / "other", "other"))


@pytest.mark.prometheus
@pytest.mark.root
@pytest.mark.redis
def test_prometheus_finds_no_fault_with_the_page(busy_node: MonitoredNode) -> None:
    """Names, units and help texts are as its own checker wants them."""
    answer = subprocess.run(
        ["promtool", "check", "metrics"],
        input=scrape(busy_node.port).text,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (answer.returncode, answer.stdout + answer.stderr) == (0, "")
