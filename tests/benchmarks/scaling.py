# SPDX-License-Identifier: Apache-2.0
"""What a warm provision and destroy cost against what is there: `python -m tests.benchmarks.scaling`.

Against layers, entries and bytes of the image, and against the containers that the node has already.
"""

import argparse
from pathlib import Path

from rich.table import Table

from tests.benchmarks.images import RECIPES, Published, default_image_dir, opened_shelf
from tests.benchmarks.measuring import scratch
from tests.benchmarks.measuring.figures import conditions, median, milliseconds, seconds_of, wide_console
from tests.benchmarks.measuring.worker import NOOP
from tests.benchmarks.peers import ours

_HEADINGS = ("no-op p50 ms", "provision p50 ms", "of a no-op", "destroy p50 ms", "of a no-op")


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    console = wide_console()
    console.print(conditions())
    with opened_shelf(arguments.image_dir, console) as shelf:
        images = [shelf.get(RECIPES[name]) for name in arguments.images]
        for each in ours.usable_formats(console.print):
            table = Table("", *_HEADINGS, title=f"{each}, warm, {arguments.count} of each")
            with scratch.scratch("scaling") as directory, ours.running(directory, layer_format=each) as node:
                _against_images(node, images, arguments.count, table)
                table.add_section()
                _against_containers(node, images[0], arguments, table)
            console.print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=50, help="provisions for each row")
    parser.add_argument("--containers", type=int, nargs="+", default=[10, 100, 1000], help="on the node; ascending")
    parser.add_argument("--images", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--image-dir", type=Path, default=default_image_dir(), help="where built images are kept")
    return parser.parse_args()


def _against_images(node: ours.OurNode, images: list[Published], count: int, table: Table) -> None:
    for image in images:
        node.call("pull", image=image.reference)
        table.add_row(str(image), *_figures(node, image, count))


def _against_containers(node: ours.OurNode, image: Published, arguments: argparse.Namespace, table: Table) -> None:
    there = 0
    for wanted in arguments.containers:
        for number in range(there, wanted):
            node.call("provision", container_id=f"there-{number}", image=image.reference)
        there = wanted
        table.add_row(f"{image.recipe.name}, {wanted:,} containers there", *_figures(node, image, arguments.count))
    for number in range(there):
        node.call("destroy", container_id=f"there-{number}")


def _figures(node: ours.OurNode, image: Published, count: int) -> list[str]:
    """Measure with one container of the image there already, so that an image's own mount is not counted."""
    node.call("provision", container_id="beside", image=image.reference)
    noop, provision, destroy = [], [], []
    for number in range(count):
        name = f"c-{number}"
        noop.append(seconds_of(lambda: node.call_other(NOOP)))
        provision.append(seconds_of(lambda name=name: node.call("provision", container_id=name, image=image.reference)))  # type: ignore[misc]
        destroy.append(seconds_of(lambda name=name: node.call("destroy", container_id=name)))  # type: ignore[misc]
    node.call("destroy", container_id="beside")
    least = median(noop)
    figures = [milliseconds(least)]
    for seconds in (provision, destroy):
        figures += [milliseconds(median(seconds)), f"{median(seconds) / least:.2f}"]
    return figures


if __name__ == "__main__":
    scratch.run(main)
