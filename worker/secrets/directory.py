# SPDX-License-Identifier: Apache-2.0
"""Secrets in files, as Docker and Kubernetes mount them.

Differences and limits: a secret is a file of its name, or a directory of its name with what a Kubernetes Secret of type
dockerconfigjson, dockercfg or basic-auth has for keys, and `registry` beside the last.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typing_extensions import override

from worker.secret import MAX_SECRET_BYTES, Secret, SecretMalformed, SecretResolver
from worker.settings import Settings

_DOCUMENTS = (".dockerconfigjson", ".dockercfg")
_MEMBERS = ("username", "password", "registry")


class DirectoryResolver(SecretResolver):
    """Reads files of `PROVISIONER_SECRETS_DIR`; without it there are none."""

    def __init__(self, settings: Settings) -> None:
        self._directory = settings.secrets_dir
        is_set = self._directory is not None
        self.place = f"directory {self._directory}" if is_set else "a directory, as PROVISIONER_SECRETS_DIR is not set"

    @override
    def find(self, name: str) -> Secret | None:
        if self._directory is None:
            return None
        path = self._directory / name
        with _reporting(path):
            is_directory = path.is_dir()
        if is_directory:
            return _find_in(path)
        content = _read(path)
        return None if content is None else Secret.parse(content)


def _find_in(directory: Path) -> Secret:
    """Read a Kubernetes Secret that is mounted as a directory."""
    for name in _DOCUMENTS:
        if (content := _read(directory / name)) is not None:
            return Secret.parse(content)
    contents = {name: _read(directory / name) for name in _MEMBERS}
    if contents["username"] is None or contents["password"] is None:
        raise SecretMalformed(f"its directory has neither {_DOCUMENTS[0]} nor username and password")
    try:
        return Secret({name: content.decode() for name, content in contents.items() if content is not None})
    except UnicodeDecodeError:
        raise SecretMalformed("its username or password is not UTF-8") from None


def _read(path: Path) -> bytes | None:
    """Read a file, or nothing if there is none."""
    with _reporting(path):
        try:
            with path.open("rb") as file:
                return file.read(MAX_SECRET_BYTES)
        except FileNotFoundError:
            return None


@contextmanager
def _reporting(path: Path) -> Iterator[None]:
    """Translate what the operating system says of a path."""
    try:
        yield
    except OSError as error:
        raise SecretMalformed(f"{path.name}: {error.strerror}") from None
