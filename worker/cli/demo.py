# SPDX-License-Identifier: Apache-2.0
"""`provisioner demo`: the main job end to end on real parts, and nothing left of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click

from worker.cli.cluster import Cluster, pass_cluster
from worker.cli.demo_cluster import DemoCluster
from worker.cli.demo_display import Display
from worker.cli.demo_steps import Demo, run_steps
from worker.cli.exits import failure_of
from worker.cli.output import emit, json_option, stderr, stdout
from worker.cli.signals import sigterm_as_interrupt, uninterrupted
from worker.errors import ProvisionerError

_TIMEOUT_SECONDS = 600.0


@click.command()
@click.option("--image", metavar="IMAGE", help="Any image; a packed copy of the running Python if left out.")
@click.option("--keep", is_flag=True, help="Keep the directory with the logs.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=_TIMEOUT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Of each task.",
)
@json_option
@pass_cluster
def demo(cluster: Cluster, image: str | None, keep: bool, timeout: float, as_json: bool) -> None:
    """Show the whole job on this machine: needs no registry, no Redis and, with the packed image, no network.

    Starts a Valkey and a worker of its own, provisions an image through Celery, runs a command inside, destroys,
    prunes, and stops all it started.
    """
    display = Display(stderr if as_json else stdout)
    with sigterm_as_interrupt(), _own_cluster(cluster, display, keep=keep) as own:
        shown = Demo(own=own, display=display, image=image or None, timeout_seconds=timeout)
        run_steps(shown)
    if as_json:
        document = {"steps": [asdict(step) for step in display.steps], **shown.findings}
        emit(document, as_json=True, render=lambda: "")
    else:
        display.console.print("Done: nothing is left. `provisioner up` keeps a cluster running.", style="bold green")


@contextmanager
def _own_cluster(cluster: Cluster, display: Display, *, keep: bool) -> Iterator[DemoCluster]:
    """Give the demonstration its processes and directory, and take them away however it ends."""
    own = DemoCluster(cluster.settings)
    try:
        yield own
    except (click.ClickException, ProvisionerError) as error:
        display.show_log("end of the worker's log", own.log_tail())
        raise failure_of(error) if isinstance(error, ProvisionerError) else error from None
    finally:
        with uninterrupted(), display.step("stop the worker and Valkey, remove the directory"):
            own.stop(keep=keep)
            if keep:
                display.say(f"kept: {own.directory}")
