# SPDX-License-Identifier: Apache-2.0
"""The queue under fire, beside stock Celery's: `python -m tests.integration.chaos.queue --seconds 300`.

A stock Celery app publishes as a scheduler does; real workers (prefork, late acknowledgement, one message at a time) are
killed, stopped, told to end and cut off, and so is their Redis. The book is kept in files outside of it.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.integration.chaos.queue_fleet import CONCURRENCY, CONTESTANTS, VISIBILITY_SECONDS, Contestant, site
from tests.integration.chaos.queue_ledger import spread
from tests.integration.chaos.queue_storm import Outcome, storm


def run_storm(
    contestant: Contestant, directory: Path, *, seconds: float, most: int, seed: int, report: Callable[[str], None]
) -> Outcome:
    """Let one rage over a contestant."""
    with site(contestant, directory) as place, storm(place, seed=seed, most=most) as made:
        return made.run(seconds, report=report)


def storm_table(outcomes: Mapping[str, Outcome]) -> Table:
    """Lay the ledgers side by side."""
    title = f"3 workers of {CONCURRENCY} processes, visibility timeout {VISIBILITY_SECONDS} s"
    table = Table("", *outcomes, title=title)
    rows: dict[str, Callable[[Outcome], str]] = {
        "published": lambda each: f"{each.verdict.published:,}",
        "executions begun": lambda each: f"{each.verdict.executions:,}",
        "lost": lambda each: f"{each.verdict.lost}",
        "begun more than once": lambda each: f"{each.verdict.begun_twice}",
        "done more than once": lambda each: f"{each.verdict.done_twice}",
        "… with no fault to explain it": lambda each: f"{each.verdict.done_twice_unexcused}",
        "in two processes at a time": lambda each: f"{each.verdict.beside}",
        "… with no fault to explain it ": lambda each: f"{each.verdict.beside_unexcused}",
        "workers that ended by themselves": lambda each: f"{each.ended}",
        "workers that would not end": lambda each: f"{each.hung}",
        "seconds until all was done": lambda each: f"{each.seconds:.0f}",
    }
    for name, cell in rows.items():
        table.add_row(name, *map(cell, outcomes.values()))
    table.add_section()
    for kind in sorted({kind for each in outcomes.values() for kind in each.faults}):
        table.add_row(kind, *(str(each.faults[kind]) for each in outcomes.values()))
    table.add_section()
    kinds = sorted({kind for each in outcomes.values() for kind in each.verdict.recoveries})
    for kind in kinds:
        cells = (spread(each.verdict.recoveries.get(kind, [])) for each in outcomes.values())
        table.add_row(f"begun again after: {kind}", *cells)
    return table


def main() -> int:
    """Run from the command line; the exit status says whether ours lost anything."""
    arguments = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(f"seed {arguments.seed}")
    started = time.monotonic()
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="chaos-queue-") as name:
        for contestant in arguments.contestants:
            report = lambda line, who=contestant.name: console.print(f"{time.monotonic() - started:5.0f} s  {who}: {line}")
            outcomes[contestant.name] = run_storm(
                contestant,
                Path(name) / contestant.app,
                seconds=arguments.seconds,
                most=arguments.tasks,
                seed=arguments.seed,
                report=report,
            )
    console.print(storm_table(outcomes))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("CHAOS_SECONDS", "300")))
    parser.add_argument("--tasks", type=int, default=50_000, help="published at most to each")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9)
    names = {each.name: each for each in CONTESTANTS}
    parser.add_argument("--only", choices=names, help="leave the other out")
    arguments = parser.parse_args()
    arguments.contestants = [names[arguments.only]] if arguments.only else list(CONTESTANTS)
    return arguments


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
