# SPDX-License-Identifier: Apache-2.0
"""Many containers of one image that nobody has yet, at once: `python -m tests.benchmarks.concurrent`.

One node, as many processes as containers, all requests sent before the first is answered. Each layer shall be fetched
once, and the last container shall be ready soon after the first would have been alone.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from tests.benchmarks.images import RECIPES, Published, Shelf, default_image_dir, opened_shelf
from tests.benchmarks.measuring import scratch
from tests.benchmarks.measuring.figures import MIB, conditions, median, wide_console
from tests.benchmarks.measuring.ground import Ground, some_ground
from tests.benchmarks.measuring.memory import warm_memory
from tests.benchmarks.peers import ours
from worker.image import LayerFormat


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run.

    Attributes:
        first_seconds: Until the first rootfs was there.
        last_seconds: Until all were.
        blob_requests: GETs of blobs that the registry saw.
        cpu_seconds: Of the worker, Redis and the scheduler.
        peak_rss_bytes: Of the largest process of the worker.
    """

    first_seconds: float
    last_seconds: float
    blob_requests: int
    cpu_seconds: float
    peak_rss_bytes: int


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    console = wide_console()
    console.print(conditions())
    with opened_shelf(arguments.image_dir, console) as shelf:
        image = shelf.get(RECIPES[arguments.image])
        for each in ours.usable_formats(console.print):
            with scratch.scratch("concurrent") as directory, console.status(each):
                ground = some_ground(directory, image, console.print)
                runs = {
                    count: [_measure(image, shelf, each, count, ground) for _ in range(arguments.rounds)]
                    for count in arguments.counts
                }
            console.print(_table(runs, f"{each}: containers of one cold image at once; {image}"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each count; the median is shown")
    parser.add_argument("--image", choices=RECIPES, default="middle")
    parser.add_argument("--image-dir", type=Path, default=default_image_dir(), help="where built images are kept")
    return parser.parse_args()


def _measure(image: Published, shelf: Shelf, layer_format: LayerFormat, count: int, ground: Ground) -> Measured:
    with (
        ground() as directory,
        ours.running(directory, layer_format=layer_format, concurrency=count) as node,
    ):
        shelf.warm(image)
        warm_memory(2 * (image.tar_bytes + image.blob_bytes))
        requests, usage = len(shelf.registry.blob_requests()), node.usage()
        ready_seconds = _provision_all(node, image, count)
        return Measured(
            first_seconds=min(ready_seconds),
            last_seconds=max(ready_seconds),
            blob_requests=len(shelf.registry.blob_requests()) - requests,
            cpu_seconds=(node.usage() - usage).cpu_seconds,
            peak_rss_bytes=node.peak_rss_bytes(),
        )


def _provision_all(node: ours.OurNode, image: Published, count: int) -> list[float]:
    """Return the seconds after which each was ready, all counted from before the first was sent."""
    ready: list[float] = []
    started = time.perf_counter()
    results = [node.send("provision", container_id=f"c{number}", image=image.reference) for number in range(count)]
    for result in results:
        result.then(lambda _: ready.append(time.perf_counter() - started))
    for result in results:
        result.get(timeout=ours.WAIT_SECONDS)
    return ready


def _table(runs: Mapping[int, Sequence[Measured]], title: str) -> Table:
    headings = ("first s", "last s", "last, of one alone", "blob requests", "CPU s", "peak RSS MiB")
    table = Table("containers", *headings, title=title)
    alone = median([run.last_seconds for run in next(iter(runs.values()))])
    for count, found in runs.items():
        first, last = median([run.first_seconds for run in found]), median([run.last_seconds for run in found])
        cpu = median([run.cpu_seconds for run in found])
        rss = max(run.peak_rss_bytes for run in found) / MIB
        requests = max(run.blob_requests for run in found)
        figures = (f"{first:.2f}", f"{last:.2f}", f"{last / alone:.2f}", str(requests), f"{cpu:.2f}", f"{rss:,.0f}")
        table.add_row(str(count), *figures)
    return table


if __name__ == "__main__":
    scratch.run(main)
