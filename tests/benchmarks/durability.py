# SPDX-License-Identifier: Apache-2.0
"""What it costs that layers survive power loss: `python -m tests.benchmarks.durability`.

As `cold`, but the peers are our worker and our worker with libeatmydata before libc, which makes fsync, fdatasync,
syncfs and sync_file_range do nothing, those called through ctypes included. Redis is left alone, so what is compared is
what layers, image and the container's record cost, from `send_task` to the result.
"""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from rich.table import Table

from tests.benchmarks.images import RECIPES, default_image_dir, opened_shelf
from tests.benchmarks.measuring import scratch
from tests.benchmarks.measuring.contest import Result, hold
from tests.benchmarks.measuring.figures import conditions, median, wide_console
from tests.benchmarks.measuring.ground import some_ground
from tests.benchmarks.measuring.verdict import results_table
from tests.benchmarks.peers import ours
from tests.benchmarks.peers.ready import Peer, usable
from worker.image import LayerFormat

_GOAL_IMAGE = "sci"
_GOAL = 0.1
"""Of the time without syncs, at most."""
_SHIM = "libeatmydata.so"


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    console = wide_console()
    console.print(conditions())
    peers = usable(_peers(), console.print)
    with opened_shelf(arguments.image_dir, console) as shelf:
        for name, image in [(name, shelf.get(RECIPES[name])) for name in arguments.images] if peers else []:
            with scratch.scratch("durability") as directory, console.status(str(image)) as status:
                ground = some_ground(directory, image, console.print)
                results = hold(image, shelf, peers, ground=ground, rounds=arguments.rounds, say=status.update)
            console.print(results_table(results, str(image)))
            console.print(_costs_table(results, is_goal=name == _GOAL_IMAGE))
    console.print(f"at the end: {conditions()}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="times each has its turn; medians are compared")
    parser.add_argument("--images", nargs="+", choices=RECIPES, default=["middle", "sci"])
    parser.add_argument("--image-dir", type=Path, default=default_image_dir(), help="where built images are kept")
    return parser.parse_args()


def _peers() -> Iterator[Peer]:
    """Yield each format as it is, and right after it without its syncs."""
    for peer, layer_format in zip(ours.OURS, ours.FORMATS, strict=True):
        environment = {"LD_PRELOAD": str(_shim() or "")}
        yield Peer(name=peer.name, missing=partial(_missing, layer_format), start=peer.start, is_ours=True)
        start = partial(ours.running, layer_format=layer_format, environment=environment)
        yield Peer(name=_without(peer), missing=partial(_missing, layer_format), start=start, is_ours=True)


def _without(peer: Peer) -> str:
    return f"{peer.name} without syncs"


def _missing(layer_format: LayerFormat) -> str | None:
    return ours.unsupported(layer_format) or (
        None if _shim() else f"{_SHIM} is not there; Debian's package is eatmydata"
    )


def _shim() -> Path | None:
    return next(Path("/usr/lib").glob(f"*/{_SHIM}"), None)


def _costs_table(results: Sequence[Result], *, is_goal: bool) -> Table:
    """Show how much longer it takes than without syncs, and than without them but with one syncfs(2) at the end."""
    by_name = {result.peer.name: result for result in results}
    table = Table("takes longer by", "than without", "than syncfs at the end", *(["goal"] if is_goal else []))
    for result in results:
        if (other := by_name.get(_without(result.peer))) is None:
            continue
        cost = _cost(result, other.wall_seconds)
        synced = [sum(each) for each in zip(other.wall_seconds, other.sync_seconds, strict=True)]
        text = f"[red]{cost:+.0%} missed[/red]" if is_goal and cost > _GOAL else f"{cost:+.0%}"
        table.add_row(
            result.peer.name, text, f"{_cost(result, synced):+.0%}", *([f"<= {_GOAL:.0%}"] if is_goal else [])
        )
    return table


def _cost(result: Result, seconds: Sequence[float]) -> float:
    return median(result.wall_seconds) / median(seconds) - 1


if __name__ == "__main__":
    scratch.run(main)
