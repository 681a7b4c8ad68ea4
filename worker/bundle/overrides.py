# SPDX-License-Identifier: Apache-2.0
"""What somebody at a terminal wants differently than the image; pure."""

from dataclasses import dataclass
from typing import Any

from worker.bundle.config import RuntimeConfig, has_variable, process_user
from worker.bundle.users import ProcessUser

_DEFAULT_TERM = "xterm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What is to be different; None or empty leaves it.

    Attributes:
        args: The program and its arguments, instead of all of the image's.
        env: `NAME=value`; replaces variables of the same name.
        user: As whom.
        cwd: Absolute.
        has_terminal: Whether the program gets a terminal of its own.
        has_host_network: Whether it shares the host's network instead of having none.
    """

    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: ProcessUser | None = None
    cwd: str | None = None
    has_terminal: bool = False
    has_host_network: bool = False


def overridden(config: RuntimeConfig, overrides: Overrides, *, root_path: str) -> RuntimeConfig:
    """Return the configuration with the overrides, for a bundle elsewhere than beside its rootfs at `root_path`."""
    changed = {
        **config,
        "root": {**config["root"], "path": root_path},
        "process": _process(config["process"], overrides),
    }
    if overrides.has_host_network:
        changed["linux"] = _on_host_network(config["linux"])
    return changed


def _process(process: dict[str, Any], overrides: Overrides) -> dict[str, Any]:
    changes: dict[str, Any] = {
        "terminal": overrides.has_terminal,
        "env": _merged(process["env"], overrides.env, has_terminal=overrides.has_terminal),
    }
    if overrides.args:
        changes["args"] = list(overrides.args)
    if overrides.cwd is not None:
        changes["cwd"] = overrides.cwd
    if overrides.user is not None:
        changes["user"] = process_user(overrides.user)
    return process | changes


def _merged(env: list[str], more: tuple[str, ...], *, has_terminal: bool) -> list[str]:
    replaced = {line.partition("=")[0] for line in more}
    merged = [*(line for line in env if line.partition("=")[0] not in replaced), *more]
    return [*merged, f"TERM={_DEFAULT_TERM}"] if has_terminal and not has_variable(merged, "TERM") else merged


def _on_host_network(linux: dict[str, Any]) -> dict[str, Any]:
    return linux | {"namespaces": [each for each in linux["namespaces"] if each["type"] != "network"]}
