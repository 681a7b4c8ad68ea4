# SPDX-License-Identifier: Apache-2.0
"""Images in which something can be run: a few of this machine's programs with the libraries they are linked with."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from tests.support.images import Layer, layer
from tests.support.tar import Dir, Entry, File

PROGRAMS = ("sh", "cat", "env", "id", "ls", "pwd", "sleep", "stty", "hostname")

PASSWD = b"root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\n"
GROUP = b"root:x:0:\napps:x:1001:\nextra:x:1002:other,app\ntape:x:1003:app\n"


@cache
def shell_layer() -> Layer:
    """Return `shell_entries` as a layer."""
    return layer(*shell_entries(), compression="none")


@cache
def shell_entries() -> tuple[Entry, ...]:
    """Return a shell, some tools, a root and a user `app` of three groups."""
    paths = {name: Path(str(shutil.which(name))) for name in PROGRAMS}
    files = {f"bin/{name}": path for name, path in paths.items()}
    files |= {path.lstrip("/"): Path(path) for path in _libraries(paths.values())}
    parents = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    return (
        *(Dir(path) for path in sorted(parents)),
        *(File(name, path.resolve().read_bytes(), mode=0o755) for name, path in sorted(files.items())),
        *accounts(),
    )


def accounts() -> tuple[Entry, ...]:
    """Return /etc with its account files."""
    return Dir("etc"), File("etc/passwd", PASSWD), File("etc/group", GROUP)


def _libraries(programs: object) -> list[str]:
    # It answers 1 when one of them is linked statically.
    answer = subprocess.run(["ldd", *map(str, programs)], capture_output=True, check=False)  # type: ignore[call-overload]
    return sorted(set(re.findall(r"(/\S+) \(0x", answer.stdout.decode())))
