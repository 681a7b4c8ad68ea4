# SPDX-License-Identifier: Apache-2.0
"""Images whose layers overlap, and what a rootfs of each must hold."""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.images import Image, Layer, build_image, layer
from tests.support.layouts import write_layout
from tests.support.tar import Dir, File, Whiteout

Tree = Mapping[str, str]
"""Paths of regular files with the SHA-256 of their content."""

_LAYERS = 12
_IMAGES = 12
_FILES_PER_LAYER = 12
_LARGEST_FILE_BYTES = 40_000


@dataclass(frozen=True)
class Model:
    """The images of one run.

    Attributes:
        images: By reference.
        trees: What a rootfs of each holds, by reference.
    """

    images: Mapping[str, Image]
    trees: Mapping[str, Tree]


def make_model(directory: Path, chance: random.Random) -> Model:
    """Write a layout of images that share layers below `directory`."""
    contents = [_content(number, chance) for number in range(_LAYERS)]
    layers = [_layer(number, content) for number, content in enumerate(contents)]
    images, trees = {}, {}
    for number in range(_IMAGES):
        chosen = chance.sample(range(_LAYERS), chance.randint(1, 4))
        images[f"v{number}"] = build_image([layers[each] for each in chosen], config={"Env": [f"IMAGE={number}"]})
        trees[f"v{number}"] = _tree([contents[each] for each in chosen], chosen)
    write_layout(directory, dict(images))
    return Model(
        images={f"oci:{directory}:{ref}": image for ref, image in images.items()},
        trees={f"oci:{directory}:{ref}": tree for ref, tree in trees.items()},
    )


def _content(number: int, chance: random.Random) -> dict[str, bytes]:
    names = [f"d{chance.randrange(4)}/f{chance.randrange(20)}" for _ in range(_FILES_PER_LAYER)]
    files = {name: chance.randbytes(chance.randrange(_LARGEST_FILE_BYTES)) for name in names}
    return {**files, f"own/{number}": str(number).encode()}


def _layer(number: int, content: Mapping[str, bytes]) -> Layer:
    """Each layer hides the file that only the layer before it has."""
    directories = sorted({name.partition("/")[0] for name in content})
    files = [File(name, data) for name, data in sorted(content.items())]
    return layer(*map(Dir, directories), *files, Whiteout(f"own/{_hidden(number)}"))


def _hidden(number: int) -> int:
    return (number - 1) % _LAYERS


def _tree(contents: list[dict[str, bytes]], chosen: list[int]) -> dict[str, str]:
    tree: dict[str, str] = {}
    for number, content in zip(chosen, contents, strict=True):
        tree.pop(f"own/{_hidden(number)}", None)
        tree |= {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    return tree


def read_tree(rootfs: Path) -> dict[str, str]:
    """Hash every regular file of a rootfs."""
    return {
        str(path.relative_to(rootfs)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in rootfs.rglob("*")
        if path.is_file()
    }
