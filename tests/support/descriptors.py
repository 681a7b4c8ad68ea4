# SPDX-License-Identifier: Apache-2.0
"""Which files this process holds open.

Their number alone says nothing: what earlier tests left to the garbage collector is closed at any moment.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def open_below(directory: Path) -> list[str]:
    """Return the paths of what this process has open in a directory: itself, and files without a name, included."""
    return [target for target in _open_files() if Path(target).is_relative_to(directory)]


def _open_files() -> Iterator[str]:
    """Yield what every descriptor shows, but for those closed meanwhile."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names only
        with suppress(FileNotFoundError):
            yield str(Path(f"/proc/self/fd/{name}").readlink())
