# SPDX-License-Identifier: Apache-2.0
"""`provisioner up` and the commands of another terminal, on real processes."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import build_image, layer
from tests.support.layouts import write_layout
from tests.support.ports import wait_until
from tests.support.tar import Dir, File

MAIN = [sys.executable, "-c", "from worker.cli import main; main()"]
SECONDS = 90.0


class Terminal:
    """A second terminal: it knows what `up` wrote for it."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = environment

    @property
    def variables(self) -> dict[str, str]:
        """What `. var/env` sets."""
        path = self._directory / "var" / "env"
        lines = path.read_text().splitlines() if path.exists() else []
        return dict(shlex.split(line)[1].split("=", 1) for line in lines)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `provisioner`."""
        environment = {**self._environment, **self.variables}
        return subprocess.run(
            [*MAIN, *arguments], env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )

    def json(self, *arguments: str) -> Any:
        """Run a command that must succeed, and return its document."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def is_node_live(self) -> bool:
        """Tell whether a node takes work."""
        if not self.variables:
            return False
        done = self.run("nodes", "--json")
        return done.returncode == 0 and any(node["is_live"] for node in json.loads(done.stdout)["nodes"])


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal beside a running `up`, which is stopped in good order at the end."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PROVISIONER_")}
    environment = {**others, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PROVISIONER_NODE": "here"}
    terminal = Terminal(tmp_path, environment)
    with (tmp_path / "up.log").open("wb") as log:
        process = subprocess.Popen([*MAIN, "up"], cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        wait_until(terminal.is_node_live, "start of the node", seconds=SECONDS, poll_seconds=0.5)
        yield terminal
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=SECONDS)
    output = (tmp_path / "up.log").read_text(errors="replace")
    assert code == 0, output
    assert "takes work" in output
    assert not terminal.variables, "the file for other terminals outlived the cluster"


def test_a_cluster_in_one_terminal_is_used_from_another(terminal: Terminal, tmp_path: Path) -> None:
    """Each command says what it did, as a document that programs can read, and the codes tell them how it ended."""
    layout = write_layout(tmp_path / "layout", {"app": build_image([layer(Dir("etc"), File("etc/motd", b"hello"))])})
    image = f"oci:{layout}:app"

    info = terminal.json("provision", "web-1", image)
    assert (Path(info["rootfs"]) / "etc/motd").read_bytes() == b"hello"
    assert terminal.json("provision", "web-1", image) == info

    (container,) = terminal.json("ps")["containers"]
    assert (container["container_id"], container["state"], container["node"]) == ("web-1", "provisioned", "here")
    assert terminal.json("ps", "--state", "destroying") == {"containers": []}
    assert terminal.json("inspect", "web-1")["infos"]["rootfs"] == info

    (stored,) = terminal.json("images")["images"]
    assert (stored["digest"], stored["missing"], len(stored["owners"])) == (info["digest"], [], 1)
    assert terminal.json("inspect", image)["kind"] == "image"
    assert terminal.json("lock")["locks"][0]["holders"] == []

    refused = terminal.run("provision", "web-1", f"oci:{layout}:other")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: container web-1 already has rootfs 'rootfs' from ")
    nobody = terminal.run("provision", "web-2", image, "--node", "elsewhere")
    assert nobody.returncode == 3
    assert "node elsewhere has no live worker" in nobody.stderr
    assert terminal.run("provision", "a b", image).returncode == 2

    assert terminal.json("recover")["nodes"][0]["kept"] == ["web-1"]
    assert terminal.json("destroy", "web-1") is True
    assert terminal.json("destroy", "web-1") is False
    assert terminal.json("prune", "--dry-run")["stores"][0]["images"] == [info["digest"]]
    assert terminal.json("prune", "--exclude", image)["stores"][0]["images"] == []
    assert terminal.json("prune")["stores"][0]["images"] == [info["digest"]]
    assert terminal.json("pull", image)["digest"] == info["digest"]
