# SPDX-License-Identifier: Apache-2.0
"""Cgroups of either version, found by their exact name where runtimes make them: at the top, or below one's own.

Source: cgroups(7); kernel 6.12, Documentation/admin-guide/cgroup-v2.rst.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_ROOT_DIR = Path("/sys/fs/cgroup")
_OWN_PATH = Path("/proc/self/cgroup")
_ROUNDS = 100
_PAUSE_SECONDS = 0.05


def find_cgroups(name: str) -> list[Path]:
    """Return the directories of the cgroups of this name, one in each hierarchy that has it."""
    own = {line.split(":", 2)[2] for line in _OWN_PATH.read_text(encoding="utf-8").splitlines()}
    hierarchies = [_ROOT_DIR, *(path for path in _ROOT_DIR.glob("*") if path.is_dir())]
    places = {Path(f"{hierarchy}/{above}/{name}") for hierarchy in hierarchies for above in {"/", *own}}
    return sorted(place for place in places if place.is_dir())


def remove_cgroups(name: str) -> bool:
    """Kill whatever runs in the cgroups of this name, and remove them; whether none is left.

    Effect: safe to repeat, and if there are none. Waits until the killed ones are gone, for a bounded time.
    """
    for _ in range(_ROUNDS):
        places = find_cgroups(name)
        if not places:
            return True
        for place in places:
            _kill(place)
            # Busy as long as something in it is ending.
            with suppress(OSError):
                place.rmdir()
        time.sleep(_PAUSE_SECONDS)
    return False


def _kill(place: Path) -> None:
    with suppress(OSError):
        for pid in (place / "cgroup.procs").read_text(encoding="ascii").split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
