# SPDX-License-Identifier: Apache-2.0
"""The doctor finds what is wrong with a real server, directories and kernel, and says so by its exit code."""

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run, show_node
from worker.cli.cluster import Cluster

pytestmark = pytest.mark.root


@pytest.fixture
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A store and a work directory as a worker makes them, named by the environment of this shell."""
    made = {name: tmp_path / name for name in ("store", "work")}
    for name, path in made.items():
        path.mkdir(mode=0o700)
        monkeypatch.setenv(f"PROVISIONER_{name.upper()}_DIR", str(path))
    monkeypatch.setenv("PROVISIONER_NODE", "n1")
    monkeypatch.setenv("PROVISIONER_DOCKER_CONFIG_DIR", str(tmp_path))
    return made


def _verdicts(document: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {finding["subject"]: finding["verdict"] for finding in document["findings"]}


@pytest.mark.redis
def test_a_node_in_order_is_well(run: Run, cluster: Cluster, directories: dict[str, Path]) -> None:
    """Everything that was asked for is there, and nothing is left behind by looking."""
    show_node(cluster.nodes, "n1")
    cluster.nodes.mark_recovered("n1", token=cluster.nodes.begin_recovery("n1"))

    shell = run("doctor", "--json")

    verdicts = _verdicts(shell.document)
    assert (shell.code, shell.document["is_well"]) == (0, True)
    expected = {"redis", "redis eviction", "redis persistence", "clock", "node", "kernel", "store directory"}
    expected |= {"work directory", "backend overlay", "backend bind", "layer format erofs", "docker config", "secrets"}
    assert expected <= set(verdicts)
    assert verdicts["node"] == verdicts["backend overlay"] == verdicts["clock"] == "good"
    assert [list(path.iterdir()) for path in directories.values()] == [[], []]


@pytest.mark.redis
def test_what_is_wrong_is_named_and_ends_with_1(
    run: Run, cluster: Cluster, directories: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server that evicts, open directories, a backend there is not, credentials nobody can read."""
    cluster.client.config_set("maxmemory", "200mb")
    cluster.client.config_set("maxmemory-policy", "allkeys-lru")
    directories["store"].chmod(0o755)
    monkeypatch.setenv("PROVISIONER_BACKEND", "zfs")
    monkeypatch.setenv("PROVISIONER_SECRETS_DIR", str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text("{")

    try:
        shell = run("doctor", "--json")
    finally:
        cluster.client.config_set("maxmemory", "0")
        cluster.client.config_set("maxmemory-policy", "noeviction")

    assert shell.code == 1
    wrong = {subject for subject, verdict in _verdicts(shell.document).items() if verdict == "wrong"}
    expected = {"redis eviction", "node", "store directory, mode", "backends", "docker config", "secrets"}
    assert wrong == expected


def test_without_redis_the_rest_is_looked_at(
    run: Run, directories: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """People see a table, no traceback and no password."""
    monkeypatch.setenv("PROVISIONER_REDIS_URL", "redis://:hunter2@127.0.0.1:1/0")
    monkeypatch.setenv("PROVISIONER_REDIS_TIMEOUT_SECONDS", "0.2")
    directories["work"].rmdir()

    shell = run("doctor")

    assert shell.code == 1
    assert "it cannot be asked" in shell.out
    assert "No such file or directory" in shell.out
    assert "hunter2" not in shell.out + shell.err
