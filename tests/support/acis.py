# SPDX-License-Identifier: Apache-2.0
"""App Container images: manifests, archives in every compression, directories and a web server to discover them in."""

import bz2
import gzip
import hashlib
import json
import lzma
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import zstandard
from typing_extensions import override

from tests.support.tar import Dir, Entry, File, tar_bytes

COMPRESSIONS: Mapping[str, Callable[[bytes], bytes]] = {
    "none": lambda content: content,
    "gzip": partial(gzip.compress, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}
PLATFORM_LABELS = {"os": "linux", "arch": "amd64"}


def appc_manifest(
    name: str,
    labels: Mapping[str, str] | None = None,
    *,
    dependencies: Sequence[Mapping[str, Any]] = (),
    **more: Any,
) -> dict[str, Any]:
    """Return a manifest; without `labels` it is one of linux on amd64."""
    found = PLATFORM_LABELS if labels is None else labels
    document: dict[str, Any] = {
        "acKind": "ImageManifest",
        "acVersion": "0.8.11",
        "name": name,
        "labels": [{"name": label, "value": value} for label, value in found.items()],
    }
    return document | ({"dependencies": list(dependencies)} if dependencies else {}) | more


def dependency(name: str, *, labels: Mapping[str, str] | None = None, **more: Any) -> dict[str, Any]:
    """Return an entry of `dependencies`."""
    named = [{"name": label, "value": value} for label, value in (labels or {}).items()]
    return {"imageName": name, **({"labels": named} if named else {}), **more}


def aci_tar(manifest: Mapping[str, Any] | bytes, *entries: Entry, manifest_last: bool = False) -> bytes:
    """Return an uncompressed ACI; `entries` are relative to the rootfs."""
    content = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    inside = [below_rootfs(entry) for entry in entries]
    parts = [File("manifest", content), Dir("rootfs"), *inside]
    return tar_bytes([*parts[1:], parts[0]] if manifest_last else parts)


def below_rootfs(entry: Entry) -> Entry:
    """Return the entry, and what a hard link joins, below rootfs/."""
    linkname = f"rootfs/{entry.linkname}" if entry.typeflag == b"1" else entry.linkname
    return Entry(**{**vars(entry), "path": f"rootfs/{entry.path}", "linkname": linkname})


def image_id(tar: bytes) -> str:
    """Return the id of an uncompressed ACI."""
    return f"sha512-{hashlib.sha512(tar).hexdigest()}"


def write_aci(directory: Path, name: str, tar: bytes, *, version: str = "latest", compression: str = "gzip") -> Path:
    """Put an archive where simple discovery looks for it."""
    path = directory / f"{name}-{version}-linux-amd64.aci"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(COMPRESSIONS[compression](tar))
    return path


class AciServer(ThreadingHTTPServer):
    """Serves a directory; an archive's ETag is the digest of its bytes.

    Attributes:
        asked: Paths and Authorization headers of all requests so far.
        sent: Paths of the archives that were sent, whole or in part.
        answers: What is answered instead, by path, once each: a status with its headers; 0 breaks off in the middle.
        etag_form: What an ETag looks like; None for none.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.directory = directory
        self.asked: list[tuple[str, str | None]] = []
        self.sent: list[str] = []
        self.answers: dict[str, list[tuple[int, Mapping[str, str]]]] = {}
        self.etag_form: str | None = '"{}"'

    @property
    def host(self) -> str:
        """The host and port of its URLs."""
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    """Answers as told, else with the file."""

    server: AciServer

    def do_GET(self) -> None:
        server = self.server
        server.asked.append((self.path, self.headers.get("Authorization")))
        status, headers = server.answers[self.path].pop(0) if server.answers.get(self.path) else (200, {})
        if status not in {0, 200}:
            self._answer(status, headers)
            return
        path = server.directory / self.path.lstrip("/")
        if not path.is_file():
            self._answer(404, {})
            return
        content = path.read_bytes()
        form = server.etag_form
        etag = {"ETag": form.format(hashlib.sha256(content).hexdigest())} if form else {}
        if etag and status and self.headers.get("If-None-Match") == etag["ETag"]:
            self._answer(304, etag)
            return
        server.sent.append(self.path)
        self._answer(200, {"Content-Length": str(len(content)), **etag})
        self.wfile.write(content if status else content[: len(content) // 2])

    def _answer(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@contextmanager
def aci_server(directory: Path) -> Iterator[AciServer]:
    """Serve a directory for the context's time."""
    server = AciServer(directory)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
