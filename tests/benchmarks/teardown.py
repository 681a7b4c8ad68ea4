# SPDX-License-Identifier: Apache-2.0
"""Taking down, beside `rm -rf`: `python -m tests.benchmarks.teardown`.

A destroy of a container that has written many files, beside `rm -rf` of as many files; a prune of an image, beside
`rm -rf` of a copy of its layers. Both through the queue. `exclusive` is how long the prune keeps others waiting.
"""

import argparse
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from tests.benchmarks.images import RECIPES, Published, default_image_dir, opened_shelf
from tests.benchmarks.measuring import scratch
from tests.benchmarks.measuring.figures import conditions, median, milliseconds, seconds_of, wide_console
from tests.benchmarks.peers import ours
from worker.image import LayerFormat

_FILES_A_DIRECTORY = 200
Row = tuple[str, list[float], list[float], list[float]]


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    console = wide_console()
    console.print(conditions())
    table = Table("", "ours ms", "rm -rf ms", "of it", "exclusive ms", title=f"median of {arguments.rounds}")
    with opened_shelf(arguments.image_dir, console) as shelf:
        images = [shelf.get(RECIPES[name]) for name in arguments.images]
        for each in ours.usable_formats(console.print):
            with scratch.scratch("teardown") as directory, console.status(each):
                for name, own, bare, exclusive in _rows(directory, images, each, arguments):
                    figures = (
                        milliseconds(median(own)),
                        milliseconds(median(bare)),
                        f"{median(own) / median(bare):.2f}",
                    )
                    table.add_row(name, *figures, f"{median(exclusive):.1f}" if exclusive else "")
    console.print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--written", type=int, nargs="+", default=[0, 1000, 20_000], help="files in a container")
    parser.add_argument("--images", nargs="+", choices=RECIPES, default=["small", "tiny", "sci"], help="to be pruned")
    parser.add_argument("--image-dir", type=Path, default=default_image_dir(), help="where built images are kept")
    return parser.parse_args()


def _rows(
    directory: Path, images: list[Published], layer_format: LayerFormat, arguments: argparse.Namespace
) -> Iterator[Row]:
    with ours.running(directory / "node", layer_format=layer_format) as node:
        for files in arguments.written:
            rounds = [_destroy(node, images[0], files, directory / "bare") for _ in range(arguments.rounds)]
            own, bare = map(list, zip(*rounds, strict=True))
            yield f"{layer_format}: destroy, {files:,} files written", own, bare, []
        node.call("prune")
        for image in images:
            pruned = [_prune(node, image, directory / "bare") for _ in range(arguments.rounds)]
            own, bare, exclusive = map(list, zip(*pruned, strict=True))
            yield f"{layer_format}: prune, {image.recipe.name}, {image.entries:,} entries", own, bare, exclusive


def _destroy(node: ours.OurNode, image: Published, files: int, bare_dir: Path) -> tuple[float, float]:
    info = node.call("provision", container_id="c", image=image.reference)
    _write_files(Path(info["rootfs"]) / "written", files)
    _write_files(bare_dir, files)
    os.sync()
    return seconds_of(lambda: node.call("destroy", container_id="c")), seconds_of(lambda: _rm(bare_dir))


def _prune(node: ours.OurNode, image: Published, bare_dir: Path) -> tuple[float, float, float]:
    node.call("pull", image=image.reference)
    subprocess.run(["cp", "--archive", node.node.store_dir / "layers", bare_dir], check=True)
    os.sync()
    answers: list[dict[str, float]] = []
    own = seconds_of(lambda: answers.extend(node.call("prune")["stores"]))
    return own, seconds_of(lambda: _rm(bare_dir)), answers[0]["exclusive_ms"]


def _write_files(directory: Path, count: int) -> None:
    directory.mkdir()
    for number in range(count):
        if number % _FILES_A_DIRECTORY == 0:
            parent = directory / str(number)
            parent.mkdir()
        (parent / str(number)).write_bytes(b"written by a container\n" * 20)


def _rm(directory: Path) -> None:
    subprocess.run(["rm", "-rf", directory], check=True)


if __name__ == "__main__":
    scratch.run(main)
