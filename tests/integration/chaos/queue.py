# SPDX-License-Identifier: Apache-2.0
"""The queue under fire, beside stock Celery's: `python -m tests.integration.chaos.queue --seconds 300`.

A stock Celery app publishes as a scheduler does; real workers (prefork, late acknowledgement, one message at a time)
are killed, stopped, told to end and cut off, and so is their Redis: first at the worst moment, one kind of harm at a
time, then at random. The book is kept in files outside of Redis. The exit status says whether ours lost or doubled
anything.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.integration.chaos.queue_cases import CASES
from tests.integration.chaos.queue_effects import run_effects
from tests.integration.chaos.queue_finding import Case, Finding
from tests.integration.chaos.queue_fleet import CONCURRENCY, CONTESTANTS, OURS, VISIBILITY_SECONDS, Contestant, site
from tests.integration.chaos.queue_ledger import spread
from tests.integration.chaos.queue_storm import Outcome, storm
from tests.integration.chaos.queue_workload import Mixture

_PARTS = ("cases", "storm", "effects")
Findings = dict[str, Finding]
Report = Callable[[str], None]


def run_cases(contestant: Contestant, directory: Path, *, report: Report) -> Findings:
    """Do all harm of the list to one contestant; a case that cannot be gone through is a bad finding."""
    findings: Findings = {}
    for case in CASES:
        for finding in _run_case(case, contestant, directory / case.__name__):
            report(f"{finding.what}: {finding.seen}")
            findings[finding.what] = finding
    return findings


def _run_case(case: Case, contestant: Contestant, directory: Path) -> list[Finding]:
    try:
        with site(contestant, directory) as place:
            return list(case(place))
    except (RuntimeError, TimeoutError) as error:
        return [Finding(what=case.__name__, seen=str(error).splitlines()[0], is_good=False)]


def cases_table(findings: Mapping[str, Findings]) -> Table:
    """Lay what was seen side by side."""
    table = Table("at the worst moment", *findings)
    names = list(dict.fromkeys(name for each in findings.values() for name in each))
    for name in names:
        table.add_row(name, *(_cell(each.get(name)) for each in findings.values()))
    return table


def _cell(finding: Finding | None) -> str:
    if finding is None:
        return "-"
    return finding.seen if finding.is_good else f"[red]{finding.seen}[/red]"


def run_storm(
    contestant: Contestant,
    directory: Path,
    *,
    seconds: float,
    report: Report,
    seed: int,
    most: int = 10**9,
    pace: float = 1.0,
) -> Outcome:
    """Let chance rage over one contestant: `most` tasks at most, `pace` seconds between two faults on average."""
    chance = random.Random(seed)
    workload = Mixture(chance)
    with site(contestant, directory) as place, storm(place, workload, chance=chance, most=most, pace=pace) as made:
        return made.run(seconds, report=report)


_ROWS: Mapping[str, Callable[[Outcome], object]] = {
    "published": lambda each: each.verdict.published,
    "executions begun": lambda each: each.verdict.executions,
    "lost": lambda each: each.verdict.lost,
    "failed": lambda each: each.verdict.failed,
    "begun more than once": lambda each: each.verdict.begun_twice,
    "done more than once": lambda each: each.verdict.done_twice,
    "… and no fault explains it": lambda each: each.verdict.done_twice_unexcused,
    "effects doubled": lambda each: "-" if each.doubled is None else each.doubled,
    "in two processes at a time": lambda each: each.verdict.beside,
    "… and no fault explains that": lambda each: each.verdict.beside_unexcused,
    "workers that ended by themselves": lambda each: each.ended,
    "workers that would not end": lambda each: each.hung,
    "seconds until all was done": lambda each: round(each.seconds),
    "faults": lambda each: each.faults.total(),
}


def _figure(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def storm_table(outcomes: Mapping[str, Outcome]) -> Table:
    """Lay the ledgers side by side."""
    title = (
        f"3 workers of {CONCURRENCY} processes, dead after {VISIBILITY_SECONDS} s; times: median, longest (how many)"
    )
    table = Table("at random", *outcomes, title=title)
    for name, figure in _ROWS.items():
        table.add_row(name, *(_figure(figure(each)) for each in outcomes.values()))
    table.add_section()
    for kind in sorted({kind for each in outcomes.values() for kind in each.faults}):
        table.add_row(kind, *(str(each.faults[kind]) for each in outcomes.values()))
    table.add_section()
    for kind in sorted({kind for each in outcomes.values() for kind in each.verdict.recoveries}):
        cells = (spread(each.verdict.recoveries.get(kind, [])) for each in outcomes.values())
        table.add_row(f"{kind}: its tasks begin again after", *cells)
    return table


def violations(outcome: Outcome) -> list[str]:
    """Say what a queue that loses nothing would not have let happen."""
    verdict = outcome.verdict
    counts = {
        "tasks lost": verdict.lost,
        "tasks failed": verdict.failed,
        "tasks done more than once without a fault": verdict.done_twice_unexcused,
        "tasks in two processes without a fault": verdict.beside_unexcused,
        "workers ended by themselves": outcome.ended,
        "workers would not end": outcome.hung,
    }
    return [f"{count} {what}" for what, count in counts.items() if count]


def main() -> int:
    """Run from the command line."""
    arguments = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="chaos-queue-") as name:
        directory = arguments.directory or Path(name)
        found: list[str] = []
        if "cases" in arguments.parts:
            found += _play_cases(arguments, directory / "cases", console)
        if "storm" in arguments.parts:
            found += _play_storm(arguments, directory / "storm", console)
        if "effects" in arguments.parts:
            found += _play_effects(arguments, directory / "effects", console)
    for each in found:
        console.print(f"[red]{OURS.name}: {each}")
    return 1 if found else 0


def _play_cases(arguments: argparse.Namespace, directory: Path, console: Console) -> list[str]:
    findings = {
        each.name: run_cases(each, directory / each.app, report=partial(_report, console, each))
        for each in arguments.contestants
    }
    console.print(cases_table(findings))
    return [f"{each.what}: {each.seen}" for each in findings.get(OURS.name, {}).values() if not each.is_good]


def _play_storm(arguments: argparse.Namespace, directory: Path, console: Console) -> list[str]:
    options = {"seconds": arguments.seconds, "most": arguments.tasks, "seed": arguments.seed, "pace": arguments.pace}
    outcomes = {
        each.name: run_storm(each, directory / each.app, report=partial(_report, console, each), **options)
        for each in arguments.contestants
    }
    console.print(storm_table(outcomes))
    return violations(outcomes[OURS.name]) if OURS.name in outcomes else []


def _play_effects(arguments: argparse.Namespace, directory: Path, console: Console) -> list[str]:
    report = partial(_report, console, OURS)
    outcome, orders, wrong = run_effects(directory, seconds=arguments.seconds, seed=arguments.seed, report=report)
    console.print(storm_table({"provision and destroy": outcome}))
    destroyed, repeated = len(orders.destroys), outcome.verdict.begun_twice
    console.print(f"{len(orders.provisions)} containers, {destroyed} destroyed; {repeated} tasks begun more than once;")
    console.print(f"rootfses, mounts, refs, layers too many, too few or not whole: {len(wrong)}")
    return [*violations(outcome), *wrong]


def _report(console: Console, contestant: Contestant, line: str) -> None:
    console.print(f"{time.strftime('%H:%M:%S')}  {contestant.name}: {line}", markup=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help="cases, storm, effects; all if none is named")
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("CHAOS_SECONDS", "300")))
    parser.add_argument("--tasks", type=int, default=50_000, help="published at most to each, at random")
    parser.add_argument("--pace", type=float, default=3.0, help="seconds between two random faults, on average")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9)
    parser.add_argument("--directory", type=Path, help="an empty one, which keeps all logs and ledgers")
    names = {each.name: each for each in CONTESTANTS}
    parser.add_argument("--only", choices=names, help="leave the other out")
    arguments = parser.parse_args()
    arguments.parts = arguments.parts or list(_PARTS)
    arguments.contestants = [names[arguments.only]] if arguments.only else list(CONTESTANTS)
    return arguments


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
