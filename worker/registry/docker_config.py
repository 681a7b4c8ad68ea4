# SPDX-License-Identifier: Apache-2.0
"""What Docker's configuration on this node knows a registry by: `auths`, `credsStore` and `credHelpers`."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any, Final

from docker.auth import AuthConfig, load_config
from docker.credentials.constants import PROGRAM_PREFIX
from docker.errors import DockerException
from docker.utils.config import find_config_file

from worker.errors import InvalidArgument
from worker.registry.auth import Login
from worker.settings import MIB

IDENTITY_TOKEN_USERNAME: Final = "<token>"  # noqa: S105 - Docker's mark for a password that is an identity token

_MAX_CONFIG_BYTES = 4 * MIB


def docker_login(registry: str, *, config_dir: Path | None) -> Login | None:
    """Look a registry up in Docker's configuration.

    Cost: runs a credential helper where one is configured.

    Args:
        registry: As it stands in a reference.
        config_dir: Where `config.json` is; None for Docker's rule ($DOCKER_CONFIG, ~/.docker, ~/.dockercfg).

    Returns:
        None if there is no configuration or it does not know the registry.

    Raises:
        InvalidArgument: The file cannot be read or a credential helper fails. It is not passed over: an image that
            anybody may pull would work and others would be denied for no visible reason.
    """
    # At DEBUG the SDK logs user names.
    logging.getLogger("docker.auth").setLevel(logging.INFO)
    path = _config_path(config_dir)
    document = None if path is None else _read(path)
    if path is None or not document:
        return None
    try:
        config = load_config(config_dict=document)
        _check_helper(config, registry, path=path)
        return _login(config.resolve_authconfig(registry))
    except (DockerException, AttributeError, TypeError, KeyError, ValueError) as error:
        # Neither told nor chained: texts of helpers and decoders may quote what they were given.
        raise _broken(path, f"no credential can be had for {registry} ({type(error).__name__})") from None


def _config_path(config_dir: Path | None) -> Path | None:
    if config_dir is not None:
        path = config_dir / "config.json"
        return path if path.exists() else None
    found = find_config_file()
    return None if found is None else Path(str(found))


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MAX_CONFIG_BYTES))
    except OSError as error:
        raise _broken(path, error.strerror or "it cannot be read") from error
    except (ValueError, RecursionError):
        raise _broken(path, "it is not JSON") from None
    if not isinstance(document, dict):
        raise _broken(path, "it is not a JSON object")
    return document


def _check_helper(config: AuthConfig, registry: str, *, path: Path) -> None:
    """Refuse a helper that is not installed, for which the SDK has a warning only."""
    name = config.get_credential_store(registry)
    if name and shutil.which(f"{PROGRAM_PREFIX}{name}") is None:
        raise _broken(path, f"its credential helper {PROGRAM_PREFIX}{name} is not installed")


def _login(entry: dict[str, Any] | None) -> Login | None:
    """Read what the SDK answers, which spells the same members in two ways."""
    lowered = {name.lower(): value for name, value in (entry or {}).items()}
    if token := lowered.get("identitytoken"):
        return Login(identity_token=str(token))
    if username := lowered.get("username"):
        return Login(username=str(username), password=str(lowered.get("password") or ""))
    return None


def _broken(path: Path, reason: str) -> InvalidArgument:
    return InvalidArgument(argument="Docker configuration", value=str(path), reason=reason)
