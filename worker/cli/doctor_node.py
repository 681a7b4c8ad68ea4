# SPDX-License-Identifier: Apache-2.0
"""What a doctor sees on the machine: kernel, directories, backends, layer formats, credentials."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from worker.backends import AUTOMATIC_NAMES, unsupported_reasons
from worker.cli.findings import Finding, good, note, wrong
from worker.cli.output import size_text
from worker.errors import InvalidArgument
from worker.image import LayerFormat
from worker.layers.erofs.probe import erofs_unsupported_reason
from worker.linux.mountinfo import mount_that_holds
from worker.linux.statfs import filesystem_type, may_mount
from worker.pullers import make_pullers
from worker.registry.docker_config import docker_login
from worker.secrets import make_secrets
from worker.settings import Settings

_WRONG_FREE_PERCENT = 1.0
_NOTED_FREE_PERCENT = 10.0
_NOBODYS_REGISTRY = "doctor.invalid"


def check_node(settings: Settings) -> Iterator[Finding]:
    """Look at everything a worker needs of this machine."""
    yield _kernel()
    directories = {"store directory": settings.store_dir, "work directory": settings.work_dir}
    problems = 0
    for subject, path in directories.items():
        for finding in check_directory(subject, path):
            problems += not path.is_dir()
            yield finding
    if problems:
        yield note("backends", "not tried: a directory is missing")
    else:
        reasons = unsupported_reasons(work_dir=settings.work_dir, store_dir=settings.store_dir)
        yield from check_backends(reasons, configured=settings.backend)
        yield check_propagation(settings.work_dir)
        yield check_erofs(erofs_unsupported_reason(settings.store_dir), configured=settings.layer_format)
    yield check_docker_config(settings.docker_config_dir)
    yield check_secrets(settings.secrets_dir)
    yield check_sources(settings)


def _kernel() -> Finding:
    names = os.uname()
    detail = f"{names.sysname} {names.release}, {names.machine}"
    if may_mount():
        return good("kernel", detail)
    return note("kernel", f"{detail}; this process may not mount: run it as root to see what the worker can do")


def check_directory(subject: str, path: Path) -> Iterator[Finding]:
    """Look at a directory's filesystem, mode and room."""
    try:
        mode, statistics = path.stat().st_mode, os.statvfs(path)
        yield good(subject, f"{path} on {filesystem_type(path)}")
    except OSError as error:
        yield wrong(subject, f"{path}: {error.strerror}; the worker makes it when it starts")
        return
    if mode & 0o077:
        yield wrong(f"{subject}, mode", f"{mode & 0o7777:04o}: others may reach setuid files in it; chmod 0700 {path}")
    yield _room(f"{subject}, space", statistics.f_bavail, statistics.f_blocks, unit_bytes=statistics.f_frsize)
    if statistics.f_files:
        yield _room(f"{subject}, inodes", statistics.f_favail, statistics.f_files, unit_bytes=None)


def _room(subject: str, free: int, total: int, *, unit_bytes: int | None) -> Finding:
    percent = 100.0 * free / max(total, 1)
    amount = f"{free:,}" if unit_bytes is None else size_text(free * unit_bytes)
    detail = f"{amount} free, {percent:.0f} %"
    if percent < _WRONG_FREE_PERCENT:
        return wrong(subject, f"{detail}; `provisioner prune` frees what nothing uses")
    return note(subject, detail) if percent < _NOTED_FREE_PERCENT else good(subject, detail)


def check_backends(reasons: Mapping[str, str | None], *, configured: str | None) -> Iterator[Finding]:
    """Say of each backend whether it works; it is wrong if what a worker would use does not."""
    candidates = AUTOMATIC_NAMES if configured is None else (configured,)
    for name, reason in reasons.items():
        subject = f"backend {name}"
        yield good(subject, "it works") if reason is None else note(subject, reason)
    if all(reasons.get(name, "unknown") is not None for name in candidates):
        yield wrong("backends", f"none of {', '.join(candidates)} works here, so the worker does not start")


def check_propagation(work_dir: Path) -> Finding:
    """Say whether rootfses are seen in mount namespaces other than the worker's, such as a runtime's."""
    mount = mount_that_holds(work_dir.resolve())
    if mount.is_shared:
        return good("propagation", f"{mount.path} is a shared mount: rootfses are seen all over the node")
    detail = f"{mount.path} is no shared mount: a runtime in another mount namespace does not see new rootfses"
    return note("propagation", f"{detail}; mount --make-rshared {mount.path}")


def check_erofs(reason: str | None, *, configured: str | None) -> Finding:
    """Say whether images can be mounted without being unpacked."""
    subject = f"layer format {LayerFormat.EROFS}"
    if reason is None:
        return good(subject, "it works: layers are mounted as they are")
    if configured == LayerFormat.EROFS:
        return wrong(subject, reason)
    return note(subject, f"{reason}; layers are unpacked instead")


def check_docker_config(config_dir: Path | None) -> Finding:
    """See whether Docker's configuration can be read, by asking it for a registry that does not exist."""
    try:
        docker_login(_NOBODYS_REGISTRY, config_dir=config_dir)
    except InvalidArgument as error:
        return wrong("docker config", str(error))
    return good("docker config", "absent or readable")


def check_sources(settings: Settings) -> Finding:
    """See whether what images and secrets come from can be put together; nobody is asked for either."""
    try:
        make_secrets(settings)
        make_pullers(settings)
    except InvalidArgument as error:
        return wrong("sources", f"{error}; so the worker does not start")
    archives = f", images by name from {settings.archives} alone" if settings.archives else ""
    return good("sources", f"secrets from {', '.join(settings.secrets_resolvers) or 'nowhere'}{archives}")


def check_secrets(secrets_dir: Path | None) -> Finding:
    """See whether secrets can be read, and by nobody else; their contents are not looked at."""
    if secrets_dir is None:
        return good("secrets", "PROVISIONER_SECRETS_DIR is not set: none in files")
    try:
        mode, count = secrets_dir.stat().st_mode, sum(not path.name.startswith(".") for path in secrets_dir.iterdir())
    except OSError as error:
        return wrong("secrets", f"{secrets_dir}: {error.strerror}")
    if mode & 0o007:
        return wrong("secrets", f"{secrets_dir} has mode {mode & 0o7777:04o}: any user may look into it")
    return good("secrets", f"{count} in {secrets_dir}")
