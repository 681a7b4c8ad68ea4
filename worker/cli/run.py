# SPDX-License-Identifier: Apache-2.0
"""`provisioner run`: run a program in a container's rootfs, with crun or runc, and end as it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from worker.bundle.overrides import Overrides, overridden
from worker.bundle.write import BundlePlan, look_up_user, make_config, read_bundle
from worker.cli.cluster import Cluster, pass_cluster
from worker.cli.exits import ExitCode, Failure, failure_of
from worker.cli.oci_runtime import RUNTIMES, enter_view, find_runtime
from worker.cli.run_guard import Guard
from worker.cli.run_place import RunPlace, run_place
from worker.cli.run_rootfs import find_rootfs
from worker.cli.run_signals import signals_taken, wait_forwarding
from worker.container_id import ContainerId
from worker.errors import ProvisionerError
from worker.linux.namespace import die_with_parent
from worker.paths import WorkPaths
from worker.records import RootfsRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wishes:
    """The command line, as it was typed."""

    command: tuple[str, ...]
    env: tuple[str, ...]
    user: str | None
    cwd: str | None
    has_terminal: bool
    network: str
    stop_timeout: float


@click.command()
@click.argument("container")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--name", default="rootfs", show_default=True, help="Of the rootfs within the container.")
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable; without VALUE, to ours.")
@click.option("-u", "--user", metavar="USER[:GROUP]", help="As whom, by name or number; the image's if left out.")
@click.option("-w", "--workdir", "cwd", metavar="DIR", help="Where; the image's if left out.")
@click.option("-t/-T", "--tty/--no-tty", "has_terminal", default=None, help="A terminal; by default if this is one.")
@click.option(
    "--network", type=click.Choice(["none", "host"]), default="none", show_default=True, help="Loopback, or the host's."
)
@click.option("--runtime", type=click.Choice(RUNTIMES), help="The one to use; the first installed if left out.")
@click.option(
    "--stop-timeout",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="From SIGTERM to SIGKILL.",
)
@pass_cluster
def run(cluster: Cluster, /, container: str, name: str, runtime: str | None, **options: Any) -> None:
    """Run COMMAND in CONTAINER's root filesystem, on this node, in the foreground.

    Without COMMAND, what the image runs: Entrypoint and Cmd, both of which COMMAND replaces. Put -- before it. Ends
    with its exit code, 128 more than a signal's number, or 125 if it could not be run.
    """
    container_id = ContainerId.parse(container)
    if os.geteuid() != 0:
        raise Failure("only root can run a program in a rootfs", exit_code=ExitCode.NOT_RUN)
    program = find_runtime(runtime)
    wishes = _Wishes(**{**options, "has_terminal": _decide_terminal(options["has_terminal"])})
    work = WorkPaths(cluster.settings.work_dir)
    with _reported(container):
        record = find_rootfs(cluster, container_id, name)
        with signals_taken() as mask, run_place(work, container_id, program) as place:
            code = _run_guarded(place, record, wishes, mask=mask)
    click.get_current_context().exit(code)


@contextmanager
def _reported(container: str) -> Iterator[None]:
    """Give what keeps the program from being run a code that the program itself would not end with."""
    try:
        yield
    except ProvisionerError as error:
        failure = failure_of(error)
        if failure.exit_code != ExitCode.FAILED:
            raise
        raise Failure(str(error), exit_code=ExitCode.NOT_RUN) from error
    except (OSError, ValueError) as error:
        raise Failure(f"container {container} cannot be run: {error}", exit_code=ExitCode.NOT_RUN) from error


def _run_guarded(place: RunPlace, record: RootfsRecord, wishes: _Wishes, *, mask: frozenset[signal.Signals]) -> int:
    guard = Guard(place.clear)
    try:
        _write_config(place, record, wishes)
        process = _start(place, guard, mask)
        return wait_forwarding(process, stop_seconds=wishes.stop_timeout, kill=lambda: place.runtime.kill(place.run_id))
    finally:
        guard.dismiss()


def _write_config(place: RunPlace, record: RootfsRecord, wishes: _Wishes) -> None:
    """Write a bundle of this run's own: the container's with what is to be different."""
    info = record.info
    rootfs_dir = Path(info.rootfs)
    plan = BundlePlan(
        bundle_dir=place.bundle_dir,
        rootfs_dir=rootfs_dir,
        image=info.image,
        hostname=ContainerId.parse(info.container_id).parts[-1],
        is_read_only=record.is_read_only,
        docker_manifest=info.docker_manifest,
        appc_manifest=info.appc_manifest,
    )
    config = make_config(plan) if info.bundle is None else read_bundle(Path(info.bundle))
    changed = overridden(config, _overrides(wishes, rootfs_dir), root_path=str(rootfs_dir))
    if not changed["process"].get("args"):
        raise Failure(f"{info.image} names no program to run: give one after --", exit_code=ExitCode.NOT_RUN)
    plan.config_path.write_text(json.dumps(changed), encoding="utf-8")


def _overrides(wishes: _Wishes, rootfs_dir: Path) -> Overrides:
    if wishes.cwd is not None and not wishes.cwd.startswith("/"):
        raise click.UsageError(f"-w takes an absolute directory, not {wishes.cwd!r}")
    return Overrides(
        args=wishes.command,
        env=tuple(_variables(wishes.env)),
        user=None if wishes.user is None else look_up_user(wishes.user, rootfs_dir),
        cwd=wishes.cwd,
        has_terminal=wishes.has_terminal,
        has_host_network=wishes.network == "host",
    )


def _variables(env: Sequence[str]) -> list[str]:
    """Complete those without a value from our own environment; one that is not set here is not set there."""
    for line in env:
        if not line.partition("=")[0]:
            raise click.UsageError(f"-e takes NAME or NAME=VALUE, not {line!r}")
    named = [line if "=" in line else f"{line}={os.environ.get(line, '')}" for line in env]
    return [line for line, given in zip(named, env, strict=True) if "=" in given or given in os.environ]


def _decide_terminal(wanted: bool | None) -> bool:
    is_here = sys.stdin.isatty() and sys.stdout.isatty()
    if wanted and not is_here:
        raise Failure("-t needs a terminal on standard input and output", exit_code=ExitCode.NOT_RUN)
    return is_here if wanted is None else wanted


def _start(place: RunPlace, guard: Guard, mask: frozenset[signal.Signals]) -> subprocess.Popen[bytes]:
    command = [place.runtime.path, "run", "--bundle", str(place.bundle_dir), place.run_id]
    return subprocess.Popen(  # noqa: S603 - crun or runc
        command,
        preexec_fn=_preparation(guard, mask),  # noqa: PLW1509 - the command line is single-threaded
    )


def _preparation(guard: Guard, mask: frozenset[signal.Signals]) -> Callable[[], None]:
    parent_pid = os.getpid()

    def prepare() -> None:
        die_with_parent(parent_pid)
        guard.note_runtime()
        enter_view()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return prepare
