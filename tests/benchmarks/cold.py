# SPDX-License-Identifier: Apache-2.0
"""An image nobody has yet, from a registry to a mounted rootfs: `python -m tests.benchmarks.cold`.

All peers take turns on the same image, in another order each round, each time on a new file system with an empty store
and idle daemons. The registry is on loopback, its files in the page cache, nothing dirty from before. Ours goes through
Celery: from `send_task` to the result.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.benchmarks.images import RECIPES, Published, Shelf, default_image_dir, opened_shelf
from tests.benchmarks.measuring import scratch
from tests.benchmarks.measuring.contest import Result, hold
from tests.benchmarks.measuring.figures import conditions, median, wide_console
from tests.benchmarks.measuring.ground import some_ground
from tests.benchmarks.measuring.plot import Bar, write_bars
from tests.benchmarks.measuring.verdict import goals_table, results_table
from tests.benchmarks.peers.containerd import CONTAINERD
from tests.benchmarks.peers.limit import LIMIT
from tests.benchmarks.peers.ours import OURS
from tests.benchmarks.peers.podman import PODMAN
from tests.benchmarks.peers.ready import Peer, usable
from tests.benchmarks.peers.skopeo import SKOPEO

PEERS = (*OURS, LIMIT, CONTAINERD, PODMAN, SKOPEO)
_PLOT = Path(__file__).with_name("measured") / "cold.svg"
_GOAL_IMAGE = "sci"
GOALS = {
    # Of our wall time to theirs, at most.
    CONTAINERD.name: 0.25,
    PODMAN.name: 0.25,
    SKOPEO.name: 0.2,
    LIMIT.name: 1.5,
}


def main() -> None:
    """Measure and print; write the plot."""
    arguments = _arguments()
    console = wide_console()
    console.print(conditions())
    peers = [peer for peer in usable(PEERS, console.print) if arguments.peers is None or peer.name in arguments.peers]
    results: dict[str, Sequence[Result]] = {}
    with opened_shelf(arguments.image_dir, console) as shelf:
        for name, image in zip(arguments.images, _images(shelf, arguments.images), strict=True):
            results[str(image)] = found = _contest(image, shelf, peers, rounds=arguments.rounds, console=console)
            console.print(results_table(found, str(image)))
            console.print(goals_table(found, GOALS, is_goal=name == _GOAL_IMAGE))
    console.print(f"at the end: {conditions()}")
    if (plot := _plot_path(arguments)) is not None:
        _plot(plot, results)
        console.print(f"plot: {plot}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="times each peer has its turn; the median is shown")
    parser.add_argument("--images", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--peers", nargs="+", choices=[peer.name for peer in PEERS], metavar="PEER", help="only these")
    parser.add_argument("--image-dir", type=Path, default=default_image_dir(), help="where built images are kept")
    parser.add_argument(
        "--plot", type=Path, help="where the bar chart goes, an SVG; of a whole run by default the README's"
    )
    return parser.parse_args()


def _plot_path(arguments: argparse.Namespace) -> Path | None:
    """Say where to write the plot: unasked, some images or some peers do not go over that of all."""
    is_whole = arguments.peers is None and arguments.images == list(RECIPES)
    return arguments.plot or (_PLOT if is_whole else None)


def _images(shelf: Shelf, names: Sequence[str]) -> list[Published]:
    """Build what is missing before anything is measured."""
    return [shelf.get(RECIPES[name]) for name in names]


def _contest(
    image: Published, shelf: Shelf, peers: Sequence[Peer], *, rounds: int, console: Console
) -> Sequence[Result]:
    with scratch.scratch("cold") as directory, console.status(str(image)) as status:
        ground = some_ground(directory, image, console.print)
        return hold(image, shelf, peers, ground=ground, rounds=rounds, say=status.update)


def _plot(path: Path, results: dict[str, Sequence[Result]]) -> None:
    groups = {
        image: [Bar(label=each.peer.name, value=median(each.wall_seconds), kind=_kind(each.peer)) for each in found]
        for image, found in results.items()
    }
    write_bars(path, "Cold provision: seconds from the reference to the rootfs", groups, footnote=conditions())


def _kind(peer: Peer) -> str:
    return "ours" if peer.is_ours else "limit" if peer is LIMIT else "peer"


if __name__ == "__main__":
    scratch.run(main)
