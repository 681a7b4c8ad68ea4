# SPDX-License-Identifier: Apache-2.0
"""What a marked test needs from the machine, and why it is missing."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.support.redis_server import server_program

CAP_SYS_ADMIN = 21


def missing_root() -> str | None:
    """Say why this process cannot mount, or None if it can."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    if os.geteuid() == 0 and effective >> CAP_SYS_ADMIN & 1:
        return None
    return "not root, or root without CAP_SYS_ADMIN"


def missing_programs(*names: str) -> str | None:
    """Name the programs that are not on the path, or None if all are."""
    missing = [name for name in names if shutil.which(name) is None]
    return f"{', '.join(missing)} not installed" if missing else None


def missing_redis() -> str | None:
    """Say that there is neither Debian's server nor the one in the wheel, or None if there is one."""
    return missing_programs("redis-server") and missing_programs(server_program("valkey"))


NEEDS: dict[str, Callable[[], str | None]] = {
    "root": missing_root,
    "redis": missing_redis,
    "registry": lambda: missing_programs("docker-registry"),
    "engine": lambda: missing_root() or missing_programs("dockerd"),
    "erofs_utils": lambda: missing_programs("fsck.erofs", "dump.erofs"),
    "btrfs": lambda: missing_root() or missing_programs("mkfs.btrfs"),
    "runtime": lambda: missing_root() or missing_programs("crun", "runc"),
    "peer": lambda: missing_programs("umoci", "skopeo"),
    "prometheus": lambda: missing_programs("prometheus", "promtool"),
}


def is_ci() -> bool:
    """Tell whether this run is the one that decides: there, a missing need fails instead of skipping."""
    return os.environ.get("CI") == "true"
