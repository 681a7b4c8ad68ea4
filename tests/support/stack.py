# SPDX-License-Identifier: Apache-2.0
"""compose.yaml on a real Engine, with an image that holds what compose/Dockerfile puts into its own.

The Dockerfile itself needs a registry for its base and a package index; this image is made of what is installed here.
"""

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import packaging
from typing_extensions import override

from tests.support.engine import Engine, docker_client
from tests.support.mounts import mounts_below, unmount
from tests.support.needs import missing_programs
from tests.support.ports import free_port, wait_until
from worker.demo_image import pack_python_image

REPOSITORY_DIR = Path(__file__).resolve().parents[2]
SERVICES = ("redis", "worker", "beat", "flower")
HEALTHY_SECONDS = 120.0
REDIS_PASSWORD = "6f1d0c"  # noqa: S105 - of a server that lives as long as its test
FLOWER_LOGIN = "ops:9a77e2"

_IMAGE = "provisioner-stack"
_APP_DIR = "opt/provisioner"
_REDIS_UID, _BEAT_UID = 100, 10001
_PROMETHEUS_UID = 65534
_PROGRAMS = ("redis-server", "redis-cli", "grep", "prometheus")
_CELERY = '#!/bin/sh\nexec python3 -m celery "$@"\n'


def missing_stack() -> str | None:
    """Say what is missing for a stack besides the Engine."""
    return missing_programs(*_PROGRAMS) or (missing_programs("docker-compose") and missing_plugin())


def missing_plugin() -> str | None:
    """Say that `docker compose` is not there, or None if it is."""
    if missing_programs("docker"):
        return "neither docker-compose nor docker installed"
    answer = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return "neither docker-compose nor Docker's plugin compose installed" if answer.returncode else None


class Stack:
    """The services of compose.yaml, run from a directory of the test's own.

    Attributes:
        directory: A shared mount; `work`, `store` and `images` are in it.
        redis_url: As a scheduler on the host has it.
        flower_port: Flower's, of 127.0.0.1.
        prometheus_port: That of Prometheus, when it runs.
    """

    def __init__(self, directory: Path, engine: Engine) -> None:
        self.directory = directory
        self._engine = engine
        redis_port, self.flower_port, self.prometheus_port = free_port(), free_port(), free_port()
        self.redis_url = f"redis://:{REDIS_PASSWORD}@127.0.0.1:{redis_port}/0"
        self._compose_dir = directory / "compose"
        self._settings = {
            "COMPOSE_PROJECT_NAME": "stack",
            "PROVISIONER_IMAGE": _IMAGE,
            "REDIS_IMAGE": _IMAGE,
            "REDIS_PASSWORD": REDIS_PASSWORD,
            "REDIS_PORT": str(redis_port),
            "FLOWER_BASIC_AUTH": FLOWER_LOGIN,
            "FLOWER_PORT": str(self.flower_port),
            "PROMETHEUS_IMAGE": _IMAGE,
            "PROMETHEUS_PORT": str(self.prometheus_port),
            "PROVISIONER_WORK_DIR": str(directory / "work"),
            "PROVISIONER_STORE_DIR": str(directory / "store"),
            "IMAGES_DIR": str(directory / "images"),
            "PROVISIONER_HEARTBEAT_SECONDS": "1",
        }

    def prepare(self) -> None:
        """Make the directories and the settings."""
        for name in ("work", "store", "images", "compose"):
            (self.directory / name).mkdir()
        for name in ("compose.yaml", "redis.conf", "prometheus.yml", "alerts.yml"):
            shutil.copy(REPOSITORY_DIR / "compose" / name, self._compose_dir)
        lines = [f"{name}={value}\n" for name, value in self._settings.items()]
        (self._compose_dir / ".env").write_text("".join(lines), encoding="utf-8")

    def compose(self, *arguments: str) -> str:
        """Run a command of Compose; return what it printed."""
        program = ["docker", "compose"] if missing_programs("docker-compose") else ["docker-compose"]
        env = {name: value for name, value in os.environ.items() if name not in self._settings}
        answer = subprocess.run(
            [*program, "--file", "compose.yaml", *arguments],
            cwd=self._compose_dir,
            env={**env, "DOCKER_HOST": self._engine.host},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        output = answer.stdout.decode(errors="replace")
        if answer.returncode:
            raise RuntimeError(f"compose {' '.join(arguments)}:\n{output}")
        return output

    def up(self, *arguments: str) -> None:
        """Start what is named, or all, and wait until all services are healthy.

        Raises:
            RuntimeError: When they are not in time; with the ends of their logs.
        """
        self.compose("up", "--detach", "--no-build", *arguments)
        try:
            wait_until(self._is_healthy, "health", seconds=HEALTHY_SECONDS, poll_seconds=0.5)
        except TimeoutError as error:
            raise RuntimeError(f"{self.health()}\n{self.compose('logs', '--no-color', '--tail', '40')}") from error

    def _is_healthy(self) -> bool:
        return self.health() == dict.fromkeys(SERVICES, "healthy")

    def health(self) -> Mapping[str, str]:
        """Return the services' health as Docker has it."""
        with docker_client(self._engine.host) as client:
            return {
                container.labels["com.docker.compose.service"]: container.attrs["State"]["Health"]["Status"]
                for container in client.containers.list()
            }

    def container_id(self, service: str) -> str:
        """Return the id of the service's container."""
        return self.compose("ps", "--quiet", service).strip()


@contextmanager
def stack(directory: Path, engine: Engine) -> Iterator[Stack]:
    """Run all services for the context's time, on a mount that is shared as a host's is under systemd.

    Effect: nothing of it is left at the end, not even a mount.
    """
    directory.mkdir()
    for options in (["--bind", str(directory)], ["--make-private"], ["--make-shared"]):
        subprocess.run(["mount", *options, str(directory)], check=True)
    made = Stack(directory, engine)
    try:
        made.prepare()
        _import_image(engine, directory / "image.tar")
        try:
            made.up()
            yield made
        finally:
            made.compose("down", "--volumes", "--timeout", "10")
    finally:
        unmount(mounts_below(directory))


class _ImageTar(tarfile.TarFile):
    """Takes each path once, the first time: Docker imports no other."""

    @override
    def addfile(self, tarinfo: tarfile.TarInfo, fileobj: Any = None) -> None:
        """Add the member, unless its path is there."""
        if tarinfo.name not in self._seen:
            self._seen.add(tarinfo.name)
            super().addfile(tarinfo, fileobj)

    @cached_property
    def _seen(self) -> set[str]:
        return set()


def _import_image(engine: Engine, tar_path: Path) -> None:
    with _ImageTar.open(tar_path, "w") as archive:
        # Its own /etc/passwd goes before the other.
        _add_project(archive)
        _add_installed_python(archive, tar_path.with_name("python"))
        _add_programs(archive)
    changes = [f"ENV PATH=/{_APP_DIR}/bin:/usr/bin:/bin", f"ENV PYTHONPATH=/{_APP_DIR}", "ENV PYTHONUNBUFFERED=1"]
    with docker_client(engine.host) as client:
        client.api.import_image_from_file(str(tar_path), repository=_IMAGE, tag="latest", changes=changes)


def _add_installed_python(archive: tarfile.TarFile, layout_dir: Path) -> None:
    """Add the layers of the demonstration image, one over the other."""
    pack_python_image(layout_dir, on_progress=lambda _done, _total: None)
    (manifest,) = json.loads((layout_dir / "index.json").read_bytes())["manifests"]
    for layer in json.loads(_blob_path(layout_dir, manifest).read_bytes())["layers"]:
        with tarfile.open(_blob_path(layout_dir, layer)) as source:
            for member in source:
                if not Path(member.name).name.startswith(".wh."):
                    archive.addfile(member, source.extractfile(member) if member.isfile() else None)


def _blob_path(layout_dir: Path, descriptor: Mapping[str, str]) -> Path:
    return layout_dir / "blobs" / descriptor["digest"].replace(":", "/")


def _add_programs(archive: tarfile.TarFile) -> None:
    """Add what the demonstration image lacks, with the libraries it is linked with."""
    paths = {name: shutil.which(name) for name in _PROGRAMS}
    for name, path in paths.items():
        _add(archive, f"usr/bin/{name}", Path(str(path)).resolve())
    # Kombu wants to know what UTC is.
    for path in (*_libraries(map(str, paths.values())), "/usr/share/zoneinfo/UTC"):
        _add(archive, path.lstrip("/"), Path(path).resolve())


def _libraries(programs: Iterable[str]) -> list[str]:
    answer = subprocess.run(["ldd", *programs], capture_output=True, check=True)
    return sorted(set(re.findall(r"(/\S+) \(0x", answer.stdout.decode())))


def _add_project(archive: tarfile.TarFile) -> None:
    # The demonstration image leaves out what is only needed through an extra: packaging, by kombu[redis].
    for package in (REPOSITORY_DIR / "worker", REPOSITORY_DIR / "tasks", Path(packaging.__file__).parent):
        for path in sorted(package.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                _add(archive, f"{_APP_DIR}/{path.relative_to(package.parent)}", path)
    _add(archive, f"{_APP_DIR}/health.py", REPOSITORY_DIR / "compose" / "health.py")
    _add_text(archive, f"{_APP_DIR}/bin/celery", _CELERY, mode=0o755)
    _add_text(archive, "etc/passwd", f"root:x:0:0::/root:/bin/sh\nredis:x:{_REDIS_UID}:{_REDIS_UID}::/data:/bin/sh\n")
    owners = (("data", _REDIS_UID), ("var/lib/beat", _BEAT_UID), ("prometheus", _PROMETHEUS_UID))
    for name, uid in owners:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, 0o755, uid, uid
        archive.addfile(info)


def _add(archive: tarfile.TarFile, name: str, source: Path) -> None:
    info = archive.gettarinfo(str(source), name)
    # Two hard links of one file on the host are two files here.
    info.type, info.size, info.uid, info.gid = tarfile.REGTYPE, source.stat().st_size, 0, 0
    with source.open("rb") as content:
        archive.addfile(info, content)


def _add_text(archive: tarfile.TarFile, name: str, text: str, *, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(text.encode()), mode
    archive.addfile(info, io.BytesIO(text.encode()))
