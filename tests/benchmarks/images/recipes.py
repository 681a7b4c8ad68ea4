# SPDX-License-Identifier: Apache-2.0
"""How each measured image is made. What is in `small` and `middle` differs a little from machine to machine."""

import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.images.sci import write_sci
from tests.benchmarks.images.synthetic import pack_some, write_many_layers, write_tiny_files

MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One image.

    Attributes:
        name: As on the command line.
        version: Another one makes the cached image stale.
        about: For the table.
        write: Writes its layers as tars into an empty directory; base first.
        proofs: Commands that run in its rootfs; none for an image without programs.
    """

    name: str
    version: int
    about: str
    write: Callable[[Path], Sequence[Path]]
    proofs: Sequence[Sequence[str]] = ()


def _small(tar_dir: Path) -> Sequence[Path]:
    return pack_some(tar_dir, Path(sysconfig.get_path("stdlib")), tar_bytes=[19 * MB])


def _middle(tar_dir: Path) -> Sequence[Path]:
    return pack_some(tar_dir, Path("/usr/lib"), tar_bytes=[90 * MB, 90 * MB, 90 * MB])


_RECIPES = (
    Recipe(name="small", version=2, about="1 layer, 5 MB", write=_small),
    Recipe(name="middle", version=3, about="3 layers, 100 MB", write=_middle),
    Recipe(
        name="sci",
        version=2,
        about="Debian, toolchain, numpy and pandas",
        write=write_sci,
        proofs=(("gcc", "--version"), ("python3", "-c", "import numpy, pandas")),
    ),
    Recipe(name="layers", version=1, about="100 layers", write=lambda tar_dir: write_many_layers(tar_dir, 100)),
    Recipe(
        name="tiny",
        version=1,
        about="100,000 tiny files",
        write=lambda tar_dir: write_tiny_files(tar_dir, directories=500, files_each=200),
    ),
)
RECIPES = {recipe.name: recipe for recipe in _RECIPES}
