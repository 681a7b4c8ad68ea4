# SPDX-License-Identifier: Apache-2.0
"""Find a rootfs of this node by the container's record, and say what is in the way if there is none."""

from worker.backends import BACKENDS
from worker.cli.cluster import Cluster
from worker.cli.exits import ExitCode, Failure
from worker.container_id import ContainerId
from worker.container_view import ContainerView
from worker.paths import WorkPaths
from worker.records import RootfsRecord, read_record


def find_rootfs(cluster: Cluster, container_id: ContainerId, name: str) -> RootfsRecord:
    """Return the record of the rootfs; Redis is asked only for what is not here.

    Raises:
        Failure: It is on another node, not provisioned (yet), not mounted, or not ours to read.
        RecordCorrupt: The record is unreadable.
        StateUnavailable: There is no record, and Redis cannot say why.
    """
    work = WorkPaths(cluster.settings.work_dir)
    try:
        record = read_record(work.record_path(container_id.parts)).rootfses.get(name)
    except PermissionError as error:
        raise Failure(f"only the worker's user can look into {work.work_dir}", exit_code=ExitCode.NOT_RUN) from error
    if record is None:
        raise _absence(cluster.containers.get(container_id), container_id, name, node=cluster.settings.node)
    paths = work.rootfs_paths(container_id.parts, name=name)
    if not any(kind().is_provisioned(paths) for kind in BACKENDS if kind.name == record.info.backend):
        hint = f"`provisioner recover --node {record.info.node}` brings it back"
        raise Failure(f"{paths.rootfs_dir} is not mounted", exit_code=ExitCode.NOT_RUN, hint=hint)
    return record


def _absence(view: ContainerView | None, container_id: ContainerId, name: str, *, node: str) -> Failure:
    """Say why there is nothing here by what Redis shows."""
    hint = ""
    if view is None:
        message, hint = f"there is no container {container_id}", "`provisioner ps` lists them"
    elif view.node != node:
        message, hint = f"container {container_id} is on node {view.node}, this is {node}", "run it there"
    elif name in view.pending:
        message = f"rootfs {name!r} of container {container_id} is still being provisioned"
    elif view.images:
        message = f"container {container_id} has no rootfs {name!r}, but {', '.join(sorted(view.images))}"
    else:
        message = f"container {container_id} has no rootfs"
    return Failure(message, exit_code=ExitCode.NOT_RUN, hint=hint)
