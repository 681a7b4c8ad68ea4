# SPDX-License-Identifier: Apache-2.0
"""The six tasks as commands. Each checks its words as the task would, sends it by name and waits for the answer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from worker.cli.answers import ask
from worker.cli.cluster import Cluster, pass_cluster
from worker.cli.exits import ExitCode
from worker.cli.output import emit, json_option, size_text, stderr, without_nulls
from worker.cli.progress import shown_progress
from worker.cli.tables import (
    facts,
    nodes_recovered_table,
    provisioned_table,
    stores_pruned_table,
    stores_verified_table,
)
from worker.requests import (
    DestroyRequest,
    ProvisionRequest,
    PruneRequest,
    PullRequest,
    RecoverRequest,
    VerifyRequest,
)

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_TIMEOUT_SECONDS = 600.0

_node_option = click.option("--node", metavar="NODE", help="The node to do it; any if left out.")
_platform_option = click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Instead of the node's own.")
_cached_option = click.option("--no-cache", "cached", flag_value=False, default=True, help="Ask the source again.")
_secret_option = click.option("--secret", metavar="NAME", help="A credential that the node has under this name.")
_timeout_option = click.option(
    "--timeout", type=click.FloatRange(min=0), default=DEFAULT_TIMEOUT_SECONDS, show_default=True, metavar="SECONDS"
)


def _answer(cluster: Cluster, task: str, keywords: Mapping[str, Any], *, title: str, timeout: float) -> Any:
    """Send a task if somebody is there to take it, and return its answer."""
    cluster.check_served(keywords.get("node"))
    with shown_progress(stderr, title) as show:
        return ask(cluster.app, task, keywords, timeout_seconds=timeout, on_status=show)


@click.command()
@click.argument("container")
@click.argument("image")
@click.option("--name", default="rootfs", show_default=True, help="Of the rootfs within the container.")
@_node_option
@click.option("--backend", metavar="BACKEND", help="overlay, aufs, bind or copy; the node's choice if left out.")
@_platform_option
@_cached_option
@click.option("--read-only", is_flag=True, help="Nobody may write to the rootfs.")
@_secret_option
@click.option("--bundle", is_flag=True, default=None, help="With a config.json for crun, runc and their kin.")
@_timeout_option
@json_option
@pass_cluster
def provision(cluster: Cluster, /, container: str, image: str, timeout: float, as_json: bool, **options: Any) -> None:
    """Give CONTAINER a root filesystem from IMAGE and print where it is."""
    keywords = {"container_id": container, "image": image, **without_nulls(options)}
    ProvisionRequest.parse(keywords)
    answer = _answer(cluster, "provision", keywords, title=f"provision {container}", timeout=timeout)
    emit(answer, as_json=as_json, render=lambda: provisioned_table(answer))


@click.command()
@click.argument("container")
@_timeout_option
@json_option
@pass_cluster
def destroy(cluster: Cluster, container: str, timeout: float, as_json: bool) -> None:
    """Take CONTAINER down with everything nested in it; doing it twice is no error."""
    keywords = {"container_id": container}
    DestroyRequest.parse(keywords)
    answer = _answer(cluster, "destroy", keywords, title=f"destroy {container}", timeout=timeout)
    text = f"container {container} is destroyed" if answer else f"there is no container {container}"
    emit(answer, as_json=as_json, render=lambda: text)


@click.command()
@click.option("--exclude", "excluded", multiple=True, metavar="IMAGE", help="Keep this image, named or by digest.")
@_node_option
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--unused-seconds", type=click.FloatRange(min=0), metavar="SECONDS", help="Keep what was used since.")
@click.option("--free-bytes", type=click.IntRange(min=0), metavar="BYTES", help="Stop when so much is free.")
@click.option("--free-percent", type=click.FloatRange(0, 100), metavar="PERCENT", help="Likewise, of the disk.")
@_timeout_option
@json_option
@pass_cluster
def prune(cluster: Cluster, /, excluded: Sequence[str], timeout: float, as_json: bool, **options: Any) -> None:
    """Free what no container uses, in every store or in that of one node."""
    keywords = {"excluded_images": list(excluded), **without_nulls(options)}
    PruneRequest.parse(keywords)
    answer = _answer(cluster, "prune", keywords, title="prune", timeout=timeout)
    emit(answer, as_json=as_json, render=lambda: stores_pruned_table(answer["stores"], is_dry_run=options["dry_run"]))


@click.command()
@click.option("--known", "known", multiple=True, metavar="ID", help="A container to keep. Given once, others go.")
@_node_option
@_timeout_option
@json_option
@pass_cluster
def recover(cluster: Cluster, known: Sequence[str], node: str | None, timeout: float, as_json: bool) -> None:
    """Make mounts, records and state agree, on every live node or on one."""
    keywords = without_nulls({"known_container_ids": list(known) or None, "node": node})
    RecoverRequest.parse(keywords)
    answer = _answer(cluster, "recover", keywords, title="recover", timeout=timeout)
    emit(answer, as_json=as_json, render=lambda: nodes_recovered_table(answer["nodes"]))


@click.command()
@click.argument("image")
@_node_option
@_platform_option
@_cached_option
@_secret_option
@_timeout_option
@json_option
@pass_cluster
def pull(cluster: Cluster, /, image: str, timeout: float, as_json: bool, **options: Any) -> None:
    """Bring IMAGE into a node's store, without a container. The next prune frees it unless something uses it."""
    keywords = {"image": image, **without_nulls(options)}
    PullRequest.parse(keywords)
    answer = _answer(cluster, "pull", keywords, title=f"pull {image}", timeout=timeout)
    shown = {**answer, "layers": len(answer["layers"]), "bytes_fetched": size_text(answer["bytes_fetched"])}
    emit(answer, as_json=as_json, render=lambda: facts(shown))


@click.command()
@click.argument("image", required=False)
@_node_option
@click.option("--repair", is_flag=True, help="Fetch anew what is damaged, and put right what can be.")
@_timeout_option
@json_option
@pass_cluster
def verify(cluster: Cluster, /, image: str | None, timeout: float, as_json: bool, **options: Any) -> None:
    """Compare every store, or what it has of IMAGE, with what it must be. Ends with 1 if something is wrong.

    Layers that are kept as tars are hashed again; of unpacked ones only the record and readability can be checked.
    """
    keywords = without_nulls({"image": image, **options})
    VerifyRequest.parse(keywords)
    answer = _answer(cluster, "verify", keywords, title="verify", timeout=timeout)
    emit(answer, as_json=as_json, render=lambda: stores_verified_table(answer["stores"]))
    if any(store["problems"] for store in answer["stores"]):
        click.get_current_context().exit(ExitCode.FAILED)
