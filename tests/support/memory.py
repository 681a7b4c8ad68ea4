# SPDX-License-Identifier: Apache-2.0
"""What a process of its own needs to build layers of many entries in EROFS format, and to merge them.

The peak is that of /proc/self/status: getrusage(2) tells a child also of the parent it was forked from.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.support.erofs import LIMITS
from tests.support.tar import Dir, File, member_bytes, tar_bytes
from tests.support.workers import REPOSITORY_DIR
from worker.errors import LayerLimitExceeded
from worker.layers.erofs.build import build_erofs
from worker.layers.limits import LayerLimits
from worker.layers.refusal import Excess
from worker.store.merged import merge_image

_FILES_PER_DIRECTORY = 30


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Resident bytes of the process, at most so far.

    Attributes:
        before: Before the first entry.
        built: When the layers were built.
        merged: When they were merged, too, and the result was read.
        refusal: Which limit ended it, if one did.
    """

    before: int
    built: int
    merged: int
    refusal: str


def peaks_of(directory: Path, *, layers: int, entries: int, max_index_bytes: int) -> Peaks:
    """Build so many layers of so many entries below an empty directory, and merge them, in a process of its own."""
    arguments = ["--layers", layers, "--entries", entries, "--max-index-bytes", max_index_bytes]
    command = [sys.executable, "-m", __name__, directory, *map(str, arguments)]
    return Peaks(**json.loads(subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY_DIR).stdout))


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    for name in ("--layers", "--entries", "--max-index-bytes"):
        parser.add_argument(name, type=int)
    arguments = parser.parse_args()
    layer_dirs = [arguments.directory / f"sha256:{number:064d}" for number in range(arguments.layers)]
    peaks = _measured(layer_dirs, arguments.entries, replace(LIMITS, max_index_bytes=arguments.max_index_bytes))
    sys.stdout.write(json.dumps(asdict(peaks)))


def _measured(layer_dirs: list[Path], entries: int, limits: LayerLimits) -> Peaks:
    before = built = _peak_bytes()
    refusal = ""
    try:
        for number, layer_dir in enumerate(layer_dirs):
            layer_dir.mkdir()
            build_erofs(_archive(number, entries), staging_dir=layer_dir, limits=limits, is_squashed=False)
        built = _peak_bytes()
        merge_image(layer_dirs[0].parent / "merged", layer_dirs, limits=limits).check()
    except (Excess, LayerLimitExceeded) as error:
        refusal = str(error)
    return Peaks(before=before, built=built, merged=_peak_bytes(), refusal=refusal)


def _archive(layer: int, entries: int) -> Iterator[bytes]:
    """Yield a tar of small files with names as long as usual, some dozens in each directory."""
    for start in range(0, entries, _FILES_PER_DIRECTORY):
        directory = f"usr/lib/python3/layer-{layer}-package-{start:07d}"
        files = range(min(_FILES_PER_DIRECTORY, entries - start) - 1)
        members = [Dir(directory), *(File(f"{directory}/module_{number:03d}.py", b"x") for number in files)]
        yield b"".join(map(member_bytes, members))
    yield tar_bytes([])


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])


if __name__ == "__main__":
    _main()
