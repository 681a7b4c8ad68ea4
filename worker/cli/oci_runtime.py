# SPDX-License-Identifier: Apache-2.0
"""crun or runc: which is there, and how to start it so that it works on this host."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from worker.cli.exits import ExitCode, Failure
from worker.linux.namespace import hide_mount, unshare_mounts

RUNTIMES = ("crun", "runc")
"""The preferred one first: crun starts a container in a third of the time."""

_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_UNIFIED_DIR = Path("/sys/fs/cgroup/unified")
_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class OciRuntime:
    """One runtime.

    Attributes:
        path: The program.
    """

    path: str

    def delete(self, container_id: str) -> bool:
        """Kill the container if it runs and remove what the runtime keeps of it; whether nothing of it is left.

        Effect: safe to repeat, and for a container that never was.
        """
        return self._do("delete", "--force", container_id) or not self._do("state", container_id)

    def kill(self, container_id: str) -> None:
        """Send SIGKILL to the container's first process, which takes the others with it."""
        self._do("kill", container_id, "KILL")

    def _do(self, *arguments: str) -> bool:
        done = subprocess.run(  # noqa: S603 - crun or runc
            [self.path, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            preexec_fn=enter_view,
        )
        return done.returncode == 0


def find_runtime(name: str | None) -> OciRuntime:
    """Return the runtime of this name, or the first that is installed.

    Raises:
        Failure: There is none.
    """
    names = RUNTIMES if name is None else (name,)
    for each in names:
        if (path := shutil.which(each) or shutil.which(each, path=_SEARCH_PATH)) is not None:
            return OciRuntime(path)
    message = f"{' and '.join(names)} {'are' if len(names) > 1 else 'is'} not installed"
    raise Failure(message, exit_code=ExitCode.NOT_RUN, hint="on Debian: apt-get install crun")


def enter_view() -> None:
    """Give the calling process the host's mounts as runtimes want them; called between fork and exec.

    crun refuses to work where some cgroup controllers belong to version 1 and others to version 2, unless it does not
    see the latter: its containers then live in those of version 1, as runc's do.
    Source: crun 1.8.1, src/libcrun/cgroup.c, "cgroups in hybrid mode not supported".
    """
    if has_mixed_cgroups():
        unshare_mounts()
        hide_mount(_UNIFIED_DIR)


def has_mixed_cgroups(unified_dir: Path = _UNIFIED_DIR) -> bool:
    """Tell whether a cgroup hierarchy of version 2 stands beside those of version 1 and has controllers."""
    try:
        return bool((unified_dir / "cgroup.controllers").read_bytes().strip())
    except OSError:
        return False
