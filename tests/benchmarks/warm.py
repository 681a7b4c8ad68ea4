# SPDX-License-Identifier: Apache-2.0
"""Provision and destroy with all layers there: `python -m tests.benchmarks.warm`.

Through the queue, from `send_task` to the result, beside a Celery task that does nothing on the same worker, and beside
containerd's `snapshots prepare` and mount. All kinds take turns, so that what disturbs the machine disturbs them alike.
Then, in runs of their own: Redis commands and system calls of a task, and where its time goes.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.images import RECIPES, Published, default_image_dir, opened_shelf
from tests.benchmarks.measuring import scratch
from tests.benchmarks.measuring.costs import print_costs
from tests.benchmarks.measuring.figures import conditions, median, milliseconds, percentile, seconds_of, wide_console
from tests.benchmarks.measuring.worker import NOOP
from tests.benchmarks.peers import containerd, ours
from worker.image import LayerFormat

NOOP_ROW = "Celery no-op"
Samples = dict[str, list[float]]


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    console = wide_console()
    console.print(conditions())
    with scratch.scratch("warm") as directory, opened_shelf(arguments.image_dir, console) as shelf:
        image = shelf.get(RECIPES[arguments.image])
        samples = measure(directory, image, arguments, console)
        console.print(_table(samples, arguments.count))
        for each in _formats(arguments, console):
            print_costs(directory / f"costs-{each}", image, layer_format=each, console=console)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="provisions of each kind")
    parser.add_argument("--image", choices=RECIPES, default="small")
    parser.add_argument("--image-dir", type=Path, default=default_image_dir(), help="where built images are kept")
    parser.add_argument("--format", choices=ours.FORMATS, help="only this layer format of ours")
    return parser.parse_args()


def _formats(arguments: argparse.Namespace, console: Console) -> Iterator[LayerFormat]:
    return (each for each in ours.usable_formats(console.print) if arguments.format in (None, each))


def measure(directory: Path, image: Published, arguments: argparse.Namespace, console: Console) -> Samples:
    """Return the seconds of every provision and destroy of every kind."""
    samples: Samples = {}
    with ExitStack() as running:
        turns = []
        for each in _formats(arguments, console):
            node = running.enter_context(ours.running(directory / each, layer_format=each))
            turns.append(_our_turn(node, image, each, samples))
        if (reason := containerd.CONTAINERD.missing()) is None:
            daemon = running.enter_context(containerd.running(directory / "containerd"))
            daemon.pull(image)
            turns.append(_containerd_turn(daemon, image, samples))
        else:
            console.print(f"skipped: containerd: {reason}")
        for number in range(arguments.count):
            for turn in turns:
                turn(number)
    return samples


def _our_turn(node: ours.OurNode, image: Published, name: str, samples: Samples) -> Callable[[int], None]:
    """Return a turn of ours: a no-op; the image's first container on the node; one beside it."""
    node.call("pull", image=image.reference)

    def provision(container_id: str) -> None:
        node.call("provision", container_id=container_id, image=image.reference)

    def turn(number: int) -> None:
        first, second = f"first-{number}", f"second-{number}"
        _timed(samples, NOOP_ROW, lambda: node.call_other(NOOP))
        _timed(samples, f"{name}: provision, the image's first container", lambda: provision(first))
        _timed(samples, f"{name}: provision, beside another", lambda: provision(second))
        _timed(samples, f"{name}: destroy, beside another", lambda: node.call("destroy", container_id=second))
        _timed(
            samples, f"{name}: destroy, the image's last container", lambda: node.call("destroy", container_id=first)
        )

    return turn


def _containerd_turn(daemon: containerd.Containerd, image: Published, samples: Samples) -> Callable[[int], None]:
    def turn(number: int) -> None:
        key = f"warm-{number}"
        _timed(samples, "ctr snapshots prepare + mount", lambda: daemon.prepare(image, key))
        _timed(samples, "umount + ctr snapshots remove", lambda: daemon.remove(key))

    return turn


def _timed(samples: Samples, name: str, act: Callable[[], object]) -> None:
    samples.setdefault(name, []).append(seconds_of(act))


def _table(samples: Samples, count: int) -> Table:
    table = Table("", "p50 ms", "p99 ms", "fastest ms", "of a no-op", title=f"warm, {count} each")
    noop = median(samples[NOOP_ROW])
    for name, seconds in samples.items():
        middle = median(seconds)
        figures = [middle, percentile(seconds, 0.99), min(seconds)]
        table.add_row(name, *map(milliseconds, figures), f"{middle / noop:.2f}")
    return table


if __name__ == "__main__":
    scratch.run(main)
