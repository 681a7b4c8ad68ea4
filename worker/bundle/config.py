# SPDX-License-Identifier: Apache-2.0
"""The runtime configuration of an image: `config.json` as a value; pure.

Source: image-spec v1.1.1, conversion.md; runtime-spec v1.0.2, config.md and config-linux.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.bundle import defaults
from worker.bundle.annotations import annotations_of
from worker.bundle.execution import Execution
from worker.bundle.users import ProcessUser

RuntimeConfig = dict[str, Any]

_LONGEST_HOSTNAME = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The root filesystem.

    Attributes:
        path: Absolute, or relative to the bundle.
        is_read_only: Nobody may write to it.
    """

    path: str
    is_read_only: bool


def runtime_config(
    execution: Execution,
    *,
    user: ProcessUser,
    hostname: str,
    root: Root,
    volumes: Mapping[str, Path],
) -> RuntimeConfig:
    """Return the configuration.

    Args:
        execution: What the image says.
        user: Whom `execution.user` names in this rootfs.
        hostname: Cut to what a host may be called.
        root: Where the rootfs is.
        volumes: A directory of the host for each of `execution.volumes`.
    """
    binds = (
        _volume(path, place, is_read_only=path in execution.read_only_volumes)
        for path, place in sorted(volumes.items())
    )
    return {
        "ociVersion": defaults.SPEC_VERSION,
        "process": _process(execution, user),
        "root": {"path": root.path, "readonly": root.is_read_only},
        "hostname": hostname[:_LONGEST_HOSTNAME],
        "mounts": [*map(dict, defaults.MOUNTS), *binds],
        "annotations": annotations_of(execution),
        "linux": {
            "namespaces": [{"type": each} for each in defaults.NAMESPACES],
            "resources": {"devices": [dict(rule) for rule in defaults.DEVICE_RULES]},
            "maskedPaths": list(defaults.MASKED_PATHS),
            "readonlyPaths": list(defaults.READ_ONLY_PATHS),
        },
    }


def process_user(user: ProcessUser) -> dict[str, Any]:
    """Return `process.user`."""
    document: dict[str, Any] = {"uid": user.uid, "gid": user.gid}
    return document | ({"additionalGids": list(user.additional_gids)} if user.additional_gids else {})


def has_variable(env: list[str] | tuple[str, ...], name: str) -> bool:
    """Tell whether the environment has a variable of this name."""
    return any(line.partition("=")[0] == name for line in env)


def _process(execution: Execution, user: ProcessUser) -> dict[str, Any]:
    path = () if has_variable(execution.env, "PATH") else (f"PATH={defaults.SEARCH_PATH}",)
    capabilities = {each: list(defaults.CAPABILITIES) for each in ("bounding", "effective", "permitted")}
    process = {
        "terminal": False,
        "user": process_user(user),
        "env": [*path, *execution.env],
        "cwd": execution.cwd,
        "capabilities": capabilities,
        "noNewPrivileges": True,
    }
    # Without a program the specification wants no member rather than an empty one.
    return process | ({"args": list(execution.args)} if execution.args else {})


def _volume(path: str, place: Path, *, is_read_only: bool) -> dict[str, Any]:
    access = "ro" if is_read_only else "rw"
    return defaults.mount(path, "bind", "rbind", access, "nosuid", "nodev", "rprivate", source=str(place))
