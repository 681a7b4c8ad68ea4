# SPDX-License-Identifier: Apache-2.0
"""Packs the running Python installation as a real image, so that a demonstration needs no registry and no network.

Four layers, thousands of files, everything at the path it has on this machine::

    base       /bin/sh and a few tools with the shared libraries they need, /etc, /tmp
    python     the interpreter, its standard library and their shared libraries
    packages   what this project itself runs on
    changes    replaces /etc/motd and whites out /etc/build-only, both of `base`

Source: image-spec v1.1.1, image-layout.md, layer.md.
"""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, Final

from isal import isal_zlib

from worker.oci.digest import Digest
from worker.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from worker.oci.platform import Platform

REF: Final = "demo"
MOTD_PATH: Final = "/etc/motd"
BUILD_ONLY_PATH: Final = "/etc/build-only"
"""In the layer `base`, hidden by the layer `changes`."""

_DISTRIBUTION = "rootfs-provisioner"
_TOOLS = ("sh", "cat", "ls", "env", "id", "uname")
_SKIPPED_DIRS = frozenset({"__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "turtledemo"})
_SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"
_LIBRARY = re.compile(rb"(/\S+) \(0x[0-9a-f]+\)")
_REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")
_GZIP_WINDOW_BITS = 31
_REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """A file of a layer: a copy of `source`, else `content`, else a link to `target`, else a directory."""

    path: str
    source: Path | None = None
    content: bytes | None = None
    target: str | None = None
    mode: int = 0o755


class _LayerBlob:
    """Takes a tar, writes it compressed and hashes both forms in passing."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._compressor = isal_zlib.compressobj(level=1, wbits=_GZIP_WINDOW_BITS)
        self._tar_hash = hashlib.sha256()
        self._blob_hash = hashlib.sha256()
        self._blob_bytes = 0

    def write(self, content: bytes) -> int:
        self._tar_hash.update(content)
        self._put(self._compressor.compress(content))
        return len(content)

    def finish(self) -> tuple[str, dict[str, Any]]:
        """Write what is left; return the DiffID and the descriptor."""
        self._put(self._compressor.flush())
        digest = f"sha256:{self._blob_hash.hexdigest()}"
        descriptor = {"mediaType": OCI_LAYER_GZIP, "digest": digest, "size": self._blob_bytes}
        return f"sha256:{self._tar_hash.hexdigest()}", descriptor

    def _put(self, compressed: bytes) -> None:
        self._blob_hash.update(compressed)
        self._blob_bytes += len(compressed)
        self._file.write(compressed)


def pack_python_image(layout_dir: Path, *, on_progress: Callable[[int, int], None]) -> str:
    """Write an OCI layout with the demonstration image.

    Args:
        layout_dir: Where; created if it is not there. What an earlier call left is replaced.
        on_progress: Called with the files packed and the files in all, from time to time.

    Returns:
        The image as `provision` takes it: `oci:<layout_dir>:demo`.
    """
    blobs_dir = layout_dir / "blobs" / "sha256"
    blobs_dir.mkdir(parents=True, exist_ok=True)
    layers = [tuple(_with_parents(members)) for members in (_base(), _python(), _packages(), _changes())]
    report = _count_up(sum(map(len, layers)), on_progress)
    packed = [_write_layer(blobs_dir, members, report) for members in layers]
    _write_documents(layout_dir, [diff_id for diff_id, _ in packed], [descriptor for _, descriptor in packed])
    return f"oci:{layout_dir.absolute()}:{REF}"


def _count_up(total: int, on_progress: Callable[[int, int], None]) -> Callable[[], None]:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if done % 100 == 0 or done == total:
            on_progress(done, total)

    return count


# What goes into the layers.


def _base() -> Iterator[_Member]:
    tools = {name: path for name in _TOOLS if (path := shutil.which(name, path="/bin:/usr/bin"))}
    yield _Member(path="/tmp", mode=0o1777)  # noqa: S108 - a directory of the image
    yield from (_Member(path=path) for path in ("/dev", "/proc", "/sys", "/root", "/var", "/run"))
    yield from (_Member(path=f"/bin/{name}", source=Path(path)) for name, path in tools.items())
    yield from _libraries(Path(path) for path in tools.values())
    yield _text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    yield _text("/etc/group", "root:x:0:\n")
    yield _text(MOTD_PATH, "written by the layer 'base'\n")
    yield _text(BUILD_ONLY_PATH, "needed by nobody\n")
    # The linker of the image finds libraries outside its default directories only by its cache.
    if (cache := Path("/etc/ld.so.cache")).is_file():
        yield _Member(path=str(cache), source=cache, mode=0o644)


def _python() -> Iterator[_Member]:
    executable = Path(os.path.realpath(sys.executable))
    stdlib_dir = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}))
    files = list(_files(stdlib_dir))
    yield _Member(path=str(executable), source=executable)
    if executable != Path("/usr/bin/python3"):
        yield _Member(path="/usr/bin/python3", target=str(executable))
    yield from (_Member(path=str(path), source=path, mode=0o644) for path in files)
    yield from _libraries([executable, *(path for path in files if path.suffix == ".so")])


def _packages() -> Iterator[_Member]:
    """Yield the files of the distributions this project needs, where the image's Python looks for packages."""
    target_dir = sysconfig.get_path("purelib", vars={"base": sys.base_prefix, "platbase": sys.base_prefix})
    extensions = []
    for distribution in _requirements():
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file)))
            if ".." in file.parts or "__pycache__" in file.parts or not path.is_file():
                continue
            yield _Member(path=f"{target_dir}/{file}", source=path, mode=0o644)
            extensions += [path] if path.suffix == ".so" else []
    yield from _libraries(extensions)


def _changes() -> Iterator[_Member]:
    yield _text(MOTD_PATH, f"Python {sys.version.split()[0]}, packed from a running installation\n")
    directory, _, name = BUILD_ONLY_PATH.rpartition("/")
    yield _text(f"{directory}/.wh.{name}", "")


def _text(path: str, text: str) -> _Member:
    return _Member(path=path, content=text.encode(), mode=0o644)


def _files(directory: Path) -> Iterator[Path]:
    """Yield the regular files of the standard library that a running program may want."""
    for parent, names, files in os.walk(directory):
        names[:] = sorted(name for name in names if name not in _SKIPPED_DIRS and not name.startswith("config-"))
        yield from (path for name in sorted(files) if (path := Path(parent, name)).is_file())


def _libraries(programs: Iterable[Path]) -> Iterator[_Member]:
    """Yield the shared libraries the programs are linked with, and the linker itself, at the paths it finds them."""
    command = ["ldd", *(str(program) for program in programs)]
    # It answers 1 when one of them is linked statically.
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)  # noqa: S603
    for path in sorted(set(_LIBRARY.findall(answer.stdout))):
        yield _Member(path=os.fsdecode(path), source=Path(os.fsdecode(path)))


def _requirements() -> Iterator[metadata.Distribution]:
    """Yield the distributions this project needs directly or indirectly, as far as they are installed."""
    names, seen = [_DISTRIBUTION], {_DISTRIBUTION}
    while names:
        try:
            distribution = metadata.distribution(names.pop())
        except metadata.PackageNotFoundError:
            continue
        if distribution.metadata["Name"] != _DISTRIBUTION:
            yield distribution
        for requirement in distribution.requires or ():
            match = _REQUIREMENT.match(requirement)
            if match and "extra ==" not in requirement and match[0].lower() not in seen:
                seen.add(match[0].lower())
                names.append(match[0])


def _with_parents(members: Iterable[_Member]) -> Iterator[_Member]:
    """Yield each path once, its directories before it."""
    seen = {"/"}
    for member in members:
        parents = [str(parent) for parent in reversed(Path(member.path).parents)]
        for path in (*parents, member.path):
            if path not in seen:
                seen.add(path)
                yield member if path == member.path else _Member(path=path)


# How they are written.


def _write_layer(blobs_dir: Path, members: Iterable[_Member], report: Callable[[], None]) -> tuple[str, dict[str, Any]]:
    """Write one layer's blob in one pass; return its DiffID and its descriptor."""
    staged_path = blobs_dir.parent / "staged"
    with staged_path.open("wb") as file:
        blob = _LayerBlob(file)
        with tarfile.open(fileobj=blob, mode="w|") as archive:  # type: ignore[call-overload] # it calls write() alone
            for member in members:
                _write_member(archive, member)
                report()
        diff_id, descriptor = blob.finish()
    staged_path.rename(blobs_dir / descriptor["digest"].removeprefix("sha256:"))
    return diff_id, descriptor


def _write_member(archive: tarfile.TarFile, member: _Member) -> None:
    info = tarfile.TarInfo(member.path.lstrip("/"))
    info.mode = member.mode
    if member.source is not None:
        with member.source.open("rb") as file:
            status = os.fstat(file.fileno())
            info.size, info.mtime = status.st_size, int(status.st_mtime)
            archive.addfile(info, file)
    elif member.content is not None:
        info.size = len(member.content)
        archive.addfile(info, io.BytesIO(member.content))
    else:
        info.type = tarfile.DIRTYPE if member.target is None else tarfile.SYMTYPE
        info.linkname = member.target or ""
        archive.addfile(info)


def _write_documents(layout_dir: Path, diff_ids: list[str], layers: list[dict[str, Any]]) -> None:
    platform = Platform.of_host()
    named = {"os": platform.os, "architecture": platform.architecture}
    config = {
        **named,
        "config": {"Env": [f"PATH={_SEARCH_PATH}"], "Cmd": ["/usr/bin/python3"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _write_blob(layout_dir, config, OCI_CONFIG),
        "layers": layers,
    }
    entry = {**_write_blob(layout_dir, manifest, OCI_MANIFEST), "platform": named, "annotations": {_REF_NAME: REF}}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    (layout_dir / "index.json").write_text(json.dumps(index), encoding="utf-8")
    (layout_dir / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="utf-8")


def _write_blob(layout_dir: Path, document: dict[str, Any], media_type: str) -> dict[str, Any]:
    content = json.dumps(document, indent=1).encode()
    digest = Digest.of(content)
    (layout_dir / "blobs" / "sha256" / digest.hex).write_bytes(content)
    return {"mediaType": media_type, "digest": str(digest), "size": len(content)}
