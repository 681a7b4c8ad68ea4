# SPDX-License-Identifier: Apache-2.0
"""Docker's credential helpers: programs `docker-credential-<name>` that look a registry up in somebody's key store.

Docker's SDK runs them too, but waits for ever: a helper that asks a desktop, or a cloud that does not answer, would
hold a worker's slot.

Source: docker-credential-helpers, README, "Development"; docker/cli, `cli/config/credentials/native_store.go`.
"""

import json
import os
import shutil
import signal
import subprocess
from contextlib import suppress

from docker.credentials.constants import PROGRAM_PREFIX

from worker.registry.auth import Login

HELPER_TIMEOUT_SECONDS = 20.0
IDENTITY_TOKEN_USERNAME = "<token>"  # noqa: S105 - Docker's mark for a password that is an identity token

_NOT_FOUND = b"credentials not found in native keychain"


class HelperFailed(Exception):
    """A helper is not installed or broke its protocol; the text never quotes what it printed."""


class HelperSilent(Exception):
    """A helper gave no answer in time; it may later."""


def ask_helper(name: str, server: str, *, timeout_seconds: float) -> Login | None:
    """Ask `docker-credential-<name>` for a server's login; None if it has none.

    Effect: on return nothing of the helper runs any more, as far as it stayed in its process group.

    Raises:
        HelperFailed: It cannot be used.
        HelperSilent: It took longer than it may.
    """
    program = f"{PROGRAM_PREFIX}{name}"
    path = shutil.which(program)
    if path is None:
        raise HelperFailed(f"its credential helper {program} is not installed")
    status, output = _run(path, server, program=program, timeout_seconds=timeout_seconds)
    if status:
        if output.strip() == _NOT_FOUND:
            return None
        raise HelperFailed(f"its credential helper {program} ended with status {status}")
    return _login(output, program=program)


def _run(path: str, server: str, *, program: str, timeout_seconds: float) -> tuple[int, bytes]:
    """Return its exit status and what it printed. What it says on stderr is nobody's to see: it may be the secret."""
    try:
        process = subprocess.Popen(  # noqa: S603 - named by the node's own configuration
            [path, "get"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise HelperFailed(f"its credential helper {program} does not start: {error.strerror}") from None
    with process:
        try:
            output, _ = process.communicate(server.encode(), timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            reason = f"its credential helper {program} gives no answer within {timeout_seconds:g} s"
            raise HelperSilent(reason) from None
        finally:
            # What it started may hold the pipe open; the group outlives its leader.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


def _login(output: bytes, *, program: str) -> Login | None:
    """Read `{"Username", "Secret"}`; both empty is how some helpers say that they have none."""
    try:
        document = json.loads(output)
        username, secret = document["Username"], document["Secret"]
    except (ValueError, RecursionError, KeyError, TypeError):
        username = secret = None
    if not (isinstance(username, str) and isinstance(secret, str)):
        raise HelperFailed(f"its credential helper {program} does not answer as such helpers do") from None
    if not (username or secret):
        return None
    return Login(identity_token=secret) if username == IDENTITY_TOKEN_USERNAME else Login(username, secret)
