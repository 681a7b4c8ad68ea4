# SPDX-License-Identifier: Apache-2.0
"""What Docker's configuration on this node knows a registry by: `auths`, `credsStore` and `credHelpers`."""

import base64
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from docker.auth import INDEX_NAME, INDEX_URL, AuthConfig, load_config
from docker.errors import DockerException
from docker.utils.config import find_config_file

from worker.errors import InvalidArgument, RegistryUnavailable
from worker.registry.auth import Login
from worker.registry.credential_helper import HELPER_TIMEOUT_SECONDS, HelperFailed, HelperSilent, ask_helper
from worker.settings import MIB

_MAX_CONFIG_BYTES: Final = 4 * MIB
# What the SDK raises for entries that are not as they must be.
_MALFORMED = (DockerException, AttributeError, TypeError, KeyError, ValueError)


def docker_login(
    registry: str, *, config_dir: Path | None, helper_timeout_seconds: float = HELPER_TIMEOUT_SECONDS
) -> Login | None:
    """Look a registry up in Docker's configuration.

    Cost: runs a credential helper where one is configured.

    Args:
        registry: As it stands in a reference.
        config_dir: Where `config.json` is; None for Docker's rule ($DOCKER_CONFIG, ~/.docker, ~/.dockercfg).
        helper_timeout_seconds: The longest a credential helper may take.

    Returns:
        None if there is no configuration or it does not know the registry.

    Raises:
        InvalidArgument: The file cannot be read or a credential helper fails. It is not passed over: an image that
            anybody may pull would work and others would be denied for no visible reason.
        RegistryUnavailable: A credential helper gives no answer in time.
    """
    path = _config_path(config_dir)
    document = None if path is None else _read(path)
    if path is None or not document:
        return None
    try:
        config = _parse(document)
        helper = config.get_credential_store(registry)
        if helper and (login := _ask(str(helper), registry, timeout_seconds=helper_timeout_seconds)) is not None:
            return login
        return _login_in(config, registry)
    except HelperFailed as error:
        raise _broken(path, str(error)) from None
    except _MALFORMED as error:
        # Neither told nor chained: texts of decoders may quote what they were given.
        raise _broken(path, f"no credential can be had for {registry} ({type(error).__name__})") from None


def login_in_auths(auths: Mapping[str, Any], registry: str) -> Login | None:
    """Look a registry up in the member `auths` of such a configuration, or in all of an old `.dockercfg`.

    Raises:
        ValueError: It is malformed; without a word of what it holds.
    """
    try:
        entries = {key: _with_auth(entry) for key, entry in auths.items()}
        return _login_in(_parse({"auths": entries}), registry)
    except _MALFORMED:
        raise ValueError("its entries are not as Docker writes them") from None


def config_fingerprint(config_dir: Path | None) -> str:
    """Name the state of the configuration: another after every change, the same for what has the same bytes."""
    path = _config_path(config_dir)
    try:
        return "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _parse(document: dict[str, Any]) -> AuthConfig:
    # At DEBUG the SDK logs user names.
    logging.getLogger("docker.auth").setLevel(logging.INFO)
    return load_config(config_dict=document)


def _ask(helper: str, registry: str, *, timeout_seconds: float) -> Login | None:
    """Ask a helper, which knows Docker Hub by its oldest address."""
    server = INDEX_URL if registry == INDEX_NAME else registry
    try:
        return ask_helper(helper, server, timeout_seconds=timeout_seconds)
    except HelperSilent as error:
        raise RegistryUnavailable(registry=registry, reason=str(error)) from None


def _login_in(config: AuthConfig, registry: str) -> Login | None:
    """Look a registry up in `auths` alone."""
    return _login(AuthConfig({"auths": config.auths}).resolve_authconfig(registry))


def _with_auth(entry: Any) -> Any:
    """Write user name and password as the `auth` that the SDK wants beside them: Kubernetes takes either."""
    if not isinstance(entry, Mapping) or "auth" in entry or "username" not in entry:
        return entry
    pair = f"{entry['username']}:{entry['password']}"
    return {**entry, "auth": base64.b64encode(pair.encode()).decode()}


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
