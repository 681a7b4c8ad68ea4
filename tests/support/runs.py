# SPDX-License-Identifier: Apache-2.0
"""`provisioner run` as a shell starts it, and what it may leave."""

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.provisioner import Provisioner

REPOSITORY_DIR = Path(__file__).resolve().parents[2]
_TOKEN = secrets.token_hex(4)


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
    return {
        "PROVISIONER_NODE": settings.node,
        "PROVISIONER_REDIS_URL": settings.redis_url,
        "PROVISIONER_WORK_DIR": str(settings.work_dir),
        "PROVISIONER_STORE_DIR": str(settings.store_dir),
    }


def shell_environment(variables: Mapping[str, str]) -> Mapping[str, str]:
    """Return this process's environment with these settings and no others."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PROVISIONER_")}
    return {**others, "PYTHONPATH": str(REPOSITORY_DIR), **variables}


def run_here(node: Provisioner, *arguments: str, stdin: str = "", **environment: str) -> Ran:
    """Run `provisioner run` to its end on a node in this process."""
    return run_on({**run_environment(node), **environment}, *arguments, stdin=stdin)


def run_on(variables: Mapping[str, str], *arguments: str, stdin: str = "") -> Ran:
    """Run `provisioner run` to its end on the node with these variables."""
    done = subprocess.run(
        run_command(*arguments),
        env=shell_environment(variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def unique(name: str) -> str:
    """Return an id for a container: runtimes and cgroups know containers of other tests on this host too."""
    return f"{name}-{_TOKEN}"


def left_of_runs(work_dir: Path) -> list[str]:
    """Return what runs in containers of a `unique` name left: bundles, locks, runtimes' states, cgroups."""
    left = [str(path) for path in (work_dir / "runs").glob("*")]
    for root in ("/run/crun", "/run/runc", "/sys/fs/cgroup"):
        # Unlike a glob it bears that directories of others vanish meanwhile.
        left += [f"{place}/{name}" for place, names, _ in os.walk(root) for name in names if _TOKEN in name]
    return left
