# SPDX-License-Identifier: Apache-2.0
"""A cluster of one node in one terminal: `up`, and `redis` for the Procfile."""

import os
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import click
from rich.panel import Panel
from rich.text import Text

from worker.cli.cluster import Cluster, pass_cluster
from worker.cli.exits import ExitCode, Failure
from worker.cli.output import stderr, stdout
from worker.cli.signals import sigterm_as_interrupt
from worker.cli.supervisor import Program, supervise
from worker.embedded import LOOPBACK, EmbeddedServer, embedded_server, free_port, is_free, new_password
from worker.errors import InvalidArgument, StateUnavailable
from worker.linux import durable
from worker.linux.mountinfo import mounts_at_or_below
from worker.sentinel import is_sentinel
from worker.settings import Settings

FLOWER_COLUMNS = "name,state,kwargs,result,runtime,worker,received,retries,exception,uuid"
_REDIS_PORT = 6379
_FLOWER_PORT = 5555
_POLL_SECONDS = 0.2
_WORKER_PATIENCE_SECONDS = 60.0
_STYLES = {"worker": "green", "beat": "magenta", "flower": "blue"}

_directory_option = click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var"),
    show_default=True,
    help="Where the cluster keeps its files.",
)


@click.command()
@_directory_option
@click.option("--embedded", is_flag=True, help="Start a Valkey even if PROVISIONER_REDIS_URL names a server.")
@pass_cluster
def up(cluster: Cluster, directory: Path, embedded: bool) -> int:
    """Run a cluster of one node until Ctrl-C: Valkey, worker, beat and Flower.

    Valkey is started unless PROVISIONER_REDIS_URL is set. Work and store directories are below --directory unless their
    variables are set.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with ExitStack() as stack:
        settings = _settings_for(cluster.settings, directory)
        if embedded or "redis_url" not in cluster.settings.model_fields_set:
            server = stack.enter_context(_server_of(directory / "redis"))
            settings = settings.model_copy(update={"redis_url": server.url})
        stack.callback(_write_variables(directory / "env", settings).unlink, missing_ok=True)
        flower_port = _FLOWER_PORT if is_free(_FLOWER_PORT) else free_port()
        ended = supervise(
            programs(directory, flower_port=flower_port),
            environment={**os.environ, "PYTHONUNBUFFERED": "1", **variables(settings)},
            cwd=directory,
            show_line=_show_line,
            on_tick=_announcement(Cluster(settings), directory, flower_port),
        )
    if mounts := mounts_at_or_below(settings.work_dir.resolve()):
        stderr.print(f"{len(mounts)} rootfses stay mounted below {settings.work_dir}; the next `up` finds them again")
    if ended is None:
        return ExitCode.DONE
    stderr.print(f"{ended} ended by itself; all others were stopped", style="red")
    return ExitCode.FAILED


def _settings_for(settings: Settings, directory: Path) -> Settings:
    """Put what the user left open below the directory."""
    defaults = {"work_dir": directory / "work", "store_dir": directory / "store"}
    return settings.model_copy(
        update={name: path for name, path in defaults.items() if name not in settings.model_fields_set}
    )


def _server_of(directory: Path) -> AbstractContextManager[EmbeddedServer]:
    port = _REDIS_PORT if is_free(_REDIS_PORT) else None
    return embedded_server(directory, port=port, password=_kept_password(directory / "password"))


def _kept_password(path: Path) -> str:
    """Return the directory's password, made at the first start: a scheduler's URL outlives a restart."""
    with suppress(FileNotFoundError):
        return path.read_text(encoding="ascii")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    password = new_password()
    durable.write_file(path, password.encode("ascii"))
    return password


def programs(directory: Path, *, flower_port: int) -> tuple[Program, ...]:
    """What the Procfile runs, in the order of starting."""
    celery = (sys.executable, "-m", "celery", "--app", "worker")
    beat = (*celery, "beat", "--loglevel", "INFO", "--schedule", str(directory / "beat-schedule"))
    flower = (*celery, "flower", f"--address={LOOPBACK}", f"--port={flower_port}", f"--tasks_columns={FLOWER_COLUMNS}")
    return (
        Program(
            name="worker",
            command=(*celery, "worker", "--loglevel", "INFO"),
            patience_seconds=_WORKER_PATIENCE_SECONDS,
        ),
        Program(name="beat", command=beat),
        Program(name="flower", command=flower),
    )


def variables(settings: Settings) -> dict[str, str]:
    """Return what another terminal, or a scheduler, needs to know of this cluster."""
    return {
        "PROVISIONER_REDIS_URL": settings.redis_url,
        "PROVISIONER_CLUSTER": settings.cluster,
        "PROVISIONER_WORK_DIR": str(settings.work_dir),
        "PROVISIONER_STORE_DIR": str(settings.store_dir),
    }


def _write_variables(path: Path, settings: Settings) -> Path:
    """Write them as a file for the shell, readable by this user only: the URL holds the password."""
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables(settings).items())
    durable.write_file(path, text.encode())
    return path


def _show_line(name: str, line: str) -> None:
    stdout.print(Text.assemble((f"{name:>6} ", _STYLES[name]), ("│ ", "dim"), line), soft_wrap=True)


def _announcement(cluster: Cluster, directory: Path, flower_port: int) -> Callable[[], None]:
    """Return what prints, once the node is live, where everything is."""
    is_told = False

    def tell_once() -> None:
        nonlocal is_told
        if is_told or not _is_live(cluster):
            return
        is_told = True
        shown = os.path.relpath(directory / "env")
        lines = (
            f"node {cluster.settings.node} takes work",
            f"Flower: http://{LOOPBACK}:{flower_port}",
            f"in another terminal: . {shown if not shown.startswith('..') else directory / 'env'}",
            "then: provisioner provision web-1 IMAGE, or your scheduler (README)",
            "Ctrl-C stops all",
        )
        stdout.print(Panel(Text("\n".join(lines)), expand=False, border_style="green"))

    return tell_once


def _is_live(cluster: Cluster) -> bool:
    try:
        return any(status.view.name == cluster.settings.node for status in cluster.live_nodes())
    except StateUnavailable:
        return False


@click.command(name="redis")
@_directory_option
@pass_cluster
def redis_server(cluster: Cluster, directory: Path) -> None:
    """Run the embedded Valkey until Ctrl-C, where PROVISIONER_REDIS_URL says; for the Procfile."""
    port, password = _address_of(cluster.settings.redis_url)
    serving = embedded_server(directory / "redis", port=port, password=password)
    with suppress(KeyboardInterrupt), sigterm_as_interrupt(), serving as server:
        stdout.print(f"Valkey answers on {LOOPBACK}:{server.port}, its data in {server.directory}")
        _wait_for(server)


def _address_of(url: str) -> tuple[int, str | None]:
    """Return port and password of a URL of this host. Raises InvalidArgument for any other."""
    parts = urlsplit(url)
    if parts.scheme != "redis" or parts.hostname not in {LOOPBACK, "localhost"} or parts.path not in {"", "/", "/0"}:
        reason = f"an embedded server can only be redis://{LOOPBACK}:<port>/0"
        # What follows may be further sentinels, with the password.
        shown = f"{parts.scheme}://…" if is_sentinel(url) else parts._replace(netloc="…").geturl()
        raise InvalidArgument(argument="PROVISIONER_REDIS_URL", value=shown, reason=reason)
    return parts.port or _REDIS_PORT, parts.password


def _wait_for(server: EmbeddedServer) -> NoReturn:
    while server.is_running:
        time.sleep(_POLL_SECONDS)
    raise Failure(f"Valkey ended by itself; its log is in {server.directory}")
