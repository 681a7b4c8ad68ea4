# SPDX-License-Identifier: Apache-2.0
"""A cluster of one node in one terminal: what it runs. `tests/integration/test_up.py` runs it."""

import shlex
import sys
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run
from worker.cli.up import FLOWER_COLUMNS, programs

PROCFILE = Path(__file__).resolve().parents[3] / "Procfile"


def procfile() -> dict[str, str]:
    """Return the Procfile's commands by name."""
    lines = PROCFILE.read_text(encoding="utf-8").splitlines()
    return {name: command.strip() for name, _, command in (line.partition(":") for line in lines)}


def test_the_procfile_runs_the_same_programs() -> None:
    """`honcho start` and `provisioner up` are the same cluster, but for places and ports."""
    chosen = {"--port=5555", "--schedule", "/d/beat-schedule", "var/beat-schedule"}
    for program in programs(Path("/d"), flower_port=5555):
        words = shlex.split(procfile()[program.name].rpartition("exec ")[2])
        expected = ["celery" if word == "-m" else word for word in program.command if word != sys.executable]

        assert [word for word in words if word not in chosen] == [word for word in expected[1:] if word not in chosen]
    assert procfile()["redis"] == "exec provisioner redis"


def test_flower_shows_what_was_asked_and_what_was_answered() -> None:
    """Its own default leaves out arguments and results since 2.2."""
    assert f"--tasks_columns={FLOWER_COLUMNS}" in procfile()["flower"]
    assert {"name", "state", "kwargs", "result", "runtime", "worker"} <= set(FLOWER_COLUMNS.split(","))


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@redis.example.com:6379/0",
        "rediss://127.0.0.1:6379/0",
        "redis://127.0.0.1:6379/3",
        "sentinel://:hunter2@127.0.0.1:1/0;sentinel://:hunter2@127.0.0.1:2/0",
    ],
)
def test_the_embedded_server_is_refused_where_it_could_not_be(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """The Procfile's worker would look elsewhere for it."""
    monkeypatch.setenv("PROVISIONER_REDIS_URL", url)

    shell = run("redis", "--directory", str(tmp_path / "var"))

    assert shell.code == 2
    assert "PROVISIONER_REDIS_URL" in shell.err
    assert "hunter2" not in shell.err
    assert not (tmp_path / "var").exists()
