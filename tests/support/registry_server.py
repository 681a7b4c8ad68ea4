# SPDX-License-Identifier: Apache-2.0
"""Debian's `docker-registry`, for real, on a port of this machine; and pushing without a client program."""

import base64
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from tests.support.images import Blob, Image, Index
from tests.support.ports import free_port, is_listening, wait_for_server

USERNAME = "tester"
PASSWORD = "correct horse"  # noqa: S105 - of a registry that lives as long as a test
OTHER_USERNAME = "another"
"""Has the same password."""
# bcrypt is the only hash the registry takes.
_BCRYPT = "$2b$04$M/XZZ3dlYspz46dtatYf9eIH2TFc/EvL3xfIek8OmR0a5UgoafCw2"
_HTPASSWD = f"{USERNAME}:{_BCRYPT}\n{OTHER_USERNAME}:{_BCRYPT}\n"


@dataclass(frozen=True)
class Registry:
    """A running registry.

    Attributes:
        host: `127.0.0.1:<port>`, as it stands in a reference.
        storage_dir: Where it keeps what was pushed.
        log_path: Its access log, one line a request.
    """

    host: str
    storage_dir: Path
    log_path: Path
    has_password: bool = False
    _pool: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False), repr=False)

    def push(self, repository: str, tag: str, item: Image | Index) -> str:
        """Push an image or an index with all it leads to; return `host/repository:tag`."""
        self._push_children(repository, item)
        for blob in item.blobs if isinstance(item, Image) else ():
            self.push_blob(repository, blob)
        self.push_manifest(repository, tag, item.manifest)
        return f"{self.host}/{repository}:{tag}"

    def _push_children(self, repository: str, item: Image | Index) -> None:
        for child in item.children if isinstance(item, Index) else ():
            self.push(repository, child.digest, child)

    def push_blob(self, repository: str, blob: Blob) -> None:
        """Upload a blob in one piece."""
        started = self.request("POST", f"/v2/{repository}/blobs/uploads/")
        location = started.headers["Location"]
        path = location.removeprefix(f"http://{self.host}")
        url = f"{path}{'&' if '?' in path else '?'}digest={blob.digest}"
        self.request("PUT", url, body=blob.content, headers={"Content-Type": "application/octet-stream"})

    def push_manifest(self, repository: str, tag: str, manifest: Blob) -> None:
        """Upload a manifest under a tag or its digest."""
        headers = {"Content-Type": manifest.media_type}
        self.request("PUT", f"/v2/{repository}/manifests/{tag}", body=manifest.content, headers=headers)

    def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        """Send one request.

        Raises:
            RuntimeError: When the registry refuses.
        """
        headers = {**self._authorization(), **(headers or {})}
        response = self._pool.request(method, f"http://{self.host}{path}", body=body, headers=headers)
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {response.data[:500]!r}")
        return response

    def _authorization(self) -> dict[str, str]:
        token = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
        return {"Authorization": f"Basic {token}"} if self.has_password else {}

    def blob_path(self, digest: str) -> Path:
        """Return the file in which the registry keeps a blob, to corrupt it."""
        algorithm, _, hexadecimal = digest.partition(":")
        return self.storage_dir / "docker/registry/v2/blobs" / algorithm / hexadecimal[:2] / hexadecimal / "data"

    def requests(self) -> list[str]:
        """Return the paths of all that was asked for by GET so far, in order, from the access log."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return [line.partition('"GET ')[2].partition(" ")[0] for line in lines if '"GET ' in line]

    def blob_requests(self) -> list[str]:
        """Return the paths of all blobs asked for by GET so far, in order."""
        return [path for path in self.requests() if "/blobs/" in path]


def registry_config(directory: Path, port: int, *, has_password: bool) -> dict[str, Any]:
    """Return the registry's configuration; JSON is YAML."""
    htpasswd = {"htpasswd": {"realm": "tests", "path": str(directory / "htpasswd")}}
    return {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
        **({"auth": htpasswd} if has_password else {}),
    }


@contextmanager
def registry_server(directory: Path, *, has_password: bool = False, port: int | None = None) -> Iterator[Registry]:
    """Run a registry for the context's time; `directory` exists and is its own."""
    port = port or free_port()
    config_path, log_path = directory / "config.yml", directory / "registry.log"
    config_path.write_text(json.dumps(registry_config(directory, port, has_password=has_password)))
    (directory / "htpasswd").write_text(_HTPASSWD)
    with log_path.open("ab") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(config_path)], stdout=log, stderr=log)
    registry = Registry(f"127.0.0.1:{port}", directory / "storage", log_path, has_password)
    try:
        wait_for_server(process, lambda: is_listening(port), log_path=log_path)
        yield registry
    finally:
        process.kill()
        process.wait(timeout=20)
        registry._pool.clear()
