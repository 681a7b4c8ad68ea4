# SPDX-License-Identifier: Apache-2.0
"""Credentials that a task names and the node keeps: files in `SECRETS_DIR` holding `{"username", "password"}`."""

import json
import re
from pathlib import Path
from typing import Any

from worker.errors import SecretNotFound
from worker.puller import Credential
from worker.settings import MIB, Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_MAX_SECRET_BYTES = MIB


def load_secret(settings: Settings, name: str) -> Credential:
    """Read the credential called `name`.

    Raises:
        SecretNotFound: It is missing, unreadable or malformed, the name is none, or the node has no secrets. What the
            file holds is never told, nor chained to the error.
    """
    if not _NAME.fullmatch(name):
        raise SecretNotFound(secret=name[:160], reason=f"a name must match {_NAME.pattern}")
    if settings.secrets_dir is None:
        raise SecretNotFound(secret=name, reason="PROVISIONER_SECRETS_DIR is not set")
    document = _read(settings.secrets_dir / name, name=name)
    username, password = document.get("username"), document.get("password")
    if not (isinstance(username, str) and isinstance(password, str) and username):
        raise SecretNotFound(secret=name, reason="its file does not hold the strings username and password")
    return Credential(username, password)


def _read(path: Path, *, name: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MAX_SECRET_BYTES))
    except OSError as error:
        raise SecretNotFound(secret=name, reason=error.strerror or "its file cannot be read") from None
    except (ValueError, RecursionError):
        raise SecretNotFound(secret=name, reason="its file is not JSON") from None
    if not isinstance(document, dict):
        raise SecretNotFound(secret=name, reason="its file is not a JSON object")
    return document
