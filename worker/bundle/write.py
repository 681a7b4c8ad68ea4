# SPDX-License-Identifier: Apache-2.0
"""A bundle on disk: `config.json`, and a directory for the volumes, in a directory given by the caller."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from worker.bundle.annotations import omitted_labels
from worker.bundle.config import Root, RuntimeConfig, runtime_config
from worker.bundle.execution import Execution, execution_of
from worker.bundle.mount_points import check_mount_points, mount_points
from worker.bundle.users import ProcessUser, resolve_user, resolve_user_and_group
from worker.bundle.volumes import make_volumes
from worker.errors import UserNotFound
from worker.linux import durable
from worker.linux.inside import opened_inside, read_file_inside
from worker.linux.remove import remove_tree
from worker.linux.statfs import is_read_only_mount

_MAX_ACCOUNTS_BYTES = 4 * 1024 * 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundlePlan:
    """What a bundle is made of.

    Attributes:
        bundle_dir: Where; exists.
        rootfs_dir: Shown at this moment: users are looked up in it, volumes copied from it.
        image: The reference, for errors and the log.
        hostname: Of the container.
        is_read_only: Whether the rootfs refuses writes.
        docker_manifest: The image configuration, or None.
        appc_manifest: The Appc manifest, or None.
    """

    bundle_dir: Path
    rootfs_dir: Path
    image: str
    hostname: str
    is_read_only: bool
    docker_manifest: Mapping[str, Any] | None
    appc_manifest: Mapping[str, Any] | None

    @property
    def config_path(self) -> Path:
        """The runtime configuration; its presence says that the bundle is complete."""
        return self.bundle_dir / "config.json"

    @property
    def volumes_dir(self) -> Path:
        """Where the image's volumes are, if it has any."""
        return self.bundle_dir / "volumes"


def write_bundle(plan: BundlePlan) -> None:
    """Write the bundle unless it is there.

    Effect: on return it is complete, not necessarily by this call; survives power loss. A caller killed here leaves
    one without `config.json`, which the next call makes anew.

    Raises:
        UserNotFound: The image's user is none of the rootfs's.
        InvalidImage: The image's configuration is malformed.
        DirectoryMissing: The rootfs refuses writes and lacks what a runtime needs.
        StorageExhausted: No room.
    """
    if plan.config_path.exists():
        return
    try:
        config = make_config(plan)
        durable.write_file(plan.config_path, json.dumps(config, indent=2).encode())
    except BaseException:
        remove_tree(plan.volumes_dir)
        raise


def make_config(plan: BundlePlan) -> RuntimeConfig:
    """Make the volumes and return the configuration that goes with them; errors as `write_bundle`."""
    documents = {"docker_manifest": plan.docker_manifest, "appc_manifest": plan.appc_manifest}
    execution = execution_of(**documents, image=plan.image)
    if omitted := omitted_labels(execution):
        _log.warning("labels of %s are orders to a runtime and left out: %s", plan.image, ", ".join(omitted))
    if execution.omitted_volumes:
        shown = ", ".join(execution.omitted_volumes)
        _log.warning("volumes of %s are where runtimes mount and left out: %s", plan.image, shown)
    user = _user_of(execution, plan.rootfs_dir)
    if is_read_only_mount(plan.rootfs_dir):
        check_mount_points(plan.rootfs_dir, mount_points(execution), image=plan.image)
    is_beside = plan.rootfs_dir.parent == plan.bundle_dir
    return runtime_config(
        execution,
        user=user,
        hostname=plan.hostname,
        root=Root(
            path=plan.rootfs_dir.name if is_beside else str(plan.rootfs_dir),
            is_read_only=plan.is_read_only,
        ),
        volumes=make_volumes(plan.volumes_dir, execution.volumes, rootfs_dir=plan.rootfs_dir, image=plan.image),
    )


def read_bundle(bundle_dir: Path) -> RuntimeConfig:
    """Read the configuration that `write_bundle` wrote. Raises OSError or ValueError."""
    config: RuntimeConfig = json.loads((bundle_dir / "config.json").read_bytes())
    return config


def look_up_user(user: str, rootfs_dir: Path) -> ProcessUser:
    """Return the numbers behind `user[:group]` in this rootfs.

    Raises:
        UserNotFound: It has no such user, or its account files cannot be read as such.
    """
    return resolve_user(user, partial(_read_accounts, rootfs_dir, user))


def _user_of(execution: Execution, rootfs_dir: Path) -> ProcessUser:
    if not execution.group:
        return look_up_user(execution.user, rootfs_dir)
    shown = f"{execution.user}:{execution.group}"
    return resolve_user_and_group(
        execution.user,
        execution.group,
        additional_gids=execution.additional_gids,
        read=partial(_read_accounts, rootfs_dir, shown),
        find_owner=partial(_find_owner, rootfs_dir, shown),
    )


def _find_owner(rootfs_dir: Path, user: str, path: str) -> tuple[int, int] | None:
    try:
        with opened_inside(rootfs_dir, path) as place:
            status = None if place is None else os.fstat(place)
    except OSError as error:
        raise UserNotFound(user=user, reason=f"{path!r:.160}: {error.strerror}") from error
    return None if status is None else (status.st_uid, status.st_gid)


def _read_accounts(rootfs_dir: Path, user: str, path: str) -> bytes | None:
    try:
        return read_file_inside(rootfs_dir, path, max_bytes=_MAX_ACCOUNTS_BYTES)
    except OSError as error:
        raise UserNotFound(user=user, reason=f"{path}: {error.strerror}") from error
