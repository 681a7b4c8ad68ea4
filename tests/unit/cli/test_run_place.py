# SPDX-License-Identifier: Apache-2.0
"""What a dead run left goes by its exact name, and what a live one has stays."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.images import build_image
from tests.support.layouts import write_layout
from tests.support.ports import wait_until
from tests.support.provisioners import provisioner
from tests.support.runnable import shell_layer
from tests.support.runs import left_of_runs, run_command, run_environment, run_here, shell_environment, unique
from worker.cli.exits import Failure
from worker.cli.oci_runtime import find_runtime, has_mixed_cgroups
from worker.cli.run_place import run_place, sweep_runs
from worker.container_id import ContainerId
from worker.linux.cgroups import find_cgroups
from worker.paths import WorkPaths
from worker.provisioner import Provisioner

C1 = unique("c1")
CONTAINER = ContainerId.parse("pod.c1")


@pytest.fixture
def node(tmp_path: Path, redis_url: str) -> Iterator[Provisioner]:
    """A node with a container `c1`."""
    write_layout(tmp_path / "layout", {"latest": build_image([shell_layer()])})
    with provisioner(tmp_path, redis_url) as node:
        node.provision({"container_id": C1, "image": f"oci:{tmp_path / 'layout'}:latest"})
        yield node


@contextmanager
def _running(node: Provisioner, runtime: str) -> Iterator["subprocess.Popen[str]"]:
    command = run_command(C1, "--runtime", runtime, "--", "/bin/sh", "-c", "echo ready; exec sleep 1000")
    environment = shell_environment(run_environment(node))
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def _guard_of(process: "subprocess.Popen[str]") -> int:
    """Return the child that is no runtime: it runs the same program as its parent."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (guard,) = [int(child) for child in children if b"worker.cli" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return guard


@pytest.mark.root
@pytest.mark.redis
@pytest.mark.runtime
@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_the_next_run_clears_what_nobody_could(node: Provisioner, runtime: str) -> None:
    """The command and its guard were killed at once; another run's container is left alone."""
    work_dir = node.node.work.work_dir
    with _running(node, runtime) as live:
        before = left_of_runs(work_dir)
        with _running(node, runtime) as doomed:
            guard = _guard_of(doomed)
            os.kill(guard, signal.SIGSTOP)
            doomed.kill()
            os.kill(guard, signal.SIGKILL)
            doomed.wait(timeout=60)
        assert len(left_of_runs(work_dir)) > len(before)

        done = run_here(node, C1, "--runtime", runtime, "--", "/bin/sh", "-c", "exit 5")

        assert done.code == 5
        assert left_of_runs(work_dir) == before
        assert live.poll() is None
        live.kill()
        live.wait(timeout=60)
    run_here(node, C1, "--runtime", runtime, "--", "/bin/sh", "-c", "exit 0")


@pytest.mark.root
@pytest.mark.redis
@pytest.mark.runtime
@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_container_that_its_runtime_does_not_know_goes_too(node: Provisioner, runtime: str) -> None:
    """The runtime was killed before it had noted what it started."""
    work_dir = node.node.work.work_dir
    with _running(node, runtime) as process:
        (bundle_dir,) = [path for path in (work_dir / "runs").iterdir() if path.is_dir()]
        assert find_cgroups(bundle_dir.name)
        shutil.rmtree(Path("/run", runtime, bundle_dir.name))
        process.kill()
        process.wait(timeout=60)

    wait_until(lambda: left_of_runs(work_dir) == [], "the end of the container", seconds=60)


@pytest.mark.root
@pytest.mark.redis
@pytest.mark.runtime
def test_a_killed_guard_is_stood_in_for(node: Provisioner) -> None:
    """By the command, which still ends as its program does."""
    command = run_command(C1, "--runtime", "crun", "--", "/bin/sh", "-c", "echo ready; read line; exit 6")
    environment = shell_environment(run_environment(node))
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(_guard_of(process), signal.SIGKILL)
        process.stdin.write("go on\n")
        process.stdin.close()
        code = process.wait(timeout=60)

    assert code == 6
    assert left_of_runs(node.node.work.work_dir) == []


@pytest.mark.runtime
def test_a_place_is_named_after_its_container(tmp_path: Path) -> None:
    """Uniquely, and in a form that a runtime takes; nobody else can look into it."""
    work = WorkPaths(tmp_path)
    with (
        run_place(work, CONTAINER, find_runtime("crun")) as first,
        run_place(work, CONTAINER, find_runtime("crun")) as second,
    ):
        assert first.run_id != second.run_id
        assert first.run_id.startswith("provisioner-pod.c1-")
        assert first.bundle_dir.stat().st_mode & 0o7777 == 0o700
        assert sweep_runs(work) == 0
        assert first.bundle_dir.is_dir()

    assert sweep_runs(work) == 2
    assert list(work.runs_dir.iterdir()) == []


@pytest.mark.runtime
def test_a_very_long_container_id_still_makes_a_name(tmp_path: Path) -> None:
    """A cgroup's name has at most 255 bytes."""
    container_id = ContainerId.parse(".".join(["c" * 120] * 8))
    with run_place(WorkPaths(tmp_path), container_id, find_runtime("runc")) as place:
        assert len(place.run_id) < 100
        place.clear()


def test_a_lock_file_that_names_no_runtime_runs_nothing(tmp_path: Path) -> None:
    """It was killed before it wrote, or somebody else did."""
    work = WorkPaths(tmp_path)
    work.runs_dir.mkdir()
    witness = tmp_path / "witness"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {witness}\n")
    program.chmod(0o755)
    for number, text in enumerate(["", str(program)]):
        (work.runs_dir / f"provisioner-c-{number}.lock").write_text(text)
        (work.runs_dir / f"provisioner-c-{number}").mkdir()

    assert sweep_runs(work) == 2

    assert not witness.exists()
    assert list(work.runs_dir.iterdir()) == []


def test_a_runtime_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do about it."""
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)

    with pytest.raises(Failure, match="crun and runc are not installed"):
        find_runtime(None)
    with pytest.raises(Failure, match="runc is not installed"):
        find_runtime("runc")


@pytest.mark.parametrize(("content", "expected"), [(None, False), ("\n", False), ("", False), ("hugetlb rdma\n", True)])
def test_cgroups_are_mixed_if_the_second_hierarchy_has_controllers(
    tmp_path: Path, content: str | None, expected: bool
) -> None:
    """An empty one is systemd's, and no trouble."""
    if content is not None:
        (tmp_path / "cgroup.controllers").write_text(content)

    assert has_mixed_cgroups(tmp_path) is expected
