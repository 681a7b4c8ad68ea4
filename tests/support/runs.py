# SPDX-License-Identifier: Apache-2.0
"""`provisioner run` as a shell starts it, and what it may leave."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.provisioner import Provisioner

REPOSITORY_DIR = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ran:
    """What came of a command."""

    code: int
    out: str
    err: str


def run_command(*arguments: str) -> list[str]:
    """Return the words of `provisioner run`."""
    return [sys.executable, "-c", "from worker.cli import main; main()", "run", *arguments]


def run_environment(node: Provisioner) -> Mapping[str, str]:
    """Return the environment of a shell on the node."""
    settings = node.node.settings
    others = {name: value for name, value in os.environ.items() if not name.startswith("PROVISIONER_")}
    return {
        **others,
        "PYTHONPATH": str(REPOSITORY_DIR),
        "PROVISIONER_NODE": settings.node,
        "PROVISIONER_REDIS_URL": settings.redis_url,
        "PROVISIONER_WORK_DIR": str(settings.work_dir),
        "PROVISIONER_STORE_DIR": str(settings.store_dir),
    }


def run_here(node: Provisioner, *arguments: str, stdin: str = "", **environment: str) -> Ran:
    """Run `provisioner run` to its end."""
    done = subprocess.run(
        run_command(*arguments),
        env={**run_environment(node), **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def left_of_runs(node: Provisioner) -> list[str]:
    """Return what runs left: bundles, locks, containers a runtime still knows, cgroups."""
    runs_dir = node.node.work.runs_dir
    left = [str(path) for path in runs_dir.glob("*")] if runs_dir.exists() else []
    for root in ("/run/crun", "/run/runc"):
        left += [str(path) for path in Path(root).glob("provisioner-*")] if Path(root).exists() else []
    return left + [str(path) for path in Path("/sys/fs/cgroup").rglob("provisioner-*")]
