# SPDX-License-Identifier: Apache-2.0
"""A contest's figures as tables, and against the goals."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from tests.benchmarks.measuring.contest import Result
from tests.benchmarks.measuring.figures import MIB, median


def results_table(results: Sequence[Result], title: str) -> Table:
    """Show medians, and how far the wall times lie apart."""
    headings = ("wall s", "min to max", "CPU s", "written MiB", "sync after s", "peak RSS MiB")
    table = Table("", *headings, title=title)
    for result in results:
        wall = result.wall_seconds
        cpu = median([usage.cpu_seconds for usage in result.usage])
        written = median([usage.written_bytes for usage in result.usage]) / MIB
        rss = max(result.peak_rss_bytes) / MIB
        spread = f"{min(wall):.2f} to {max(wall):.2f}"
        figures = (f"{median(wall):.2f}", spread, f"{cpu:.2f}", f"{written:,.0f}", f"{median(result.sync_seconds):.2f}")
        table.add_row(result.peer.name, *figures, f"{rss:,.0f}" if rss else "")
    return table


def goals_table(results: Sequence[Result], goals: Mapping[str, float], *, is_goal: bool) -> Table:
    """Show our wall time as a part of the others', beside what it shall be at most.

    Args:
        is_goal: Whether the goals are for this image; else the ratios stand without them.
    """
    ours = [result for result in results if result.peer.is_ours]
    table = Table("wall time of", *(f"{each.peer.name}, of it" for each in ours), *(["goal"] if is_goal else []))
    for other in results:
        if (goal := goals.get(other.peer.name)) is not None:
            ratios = [median(each.wall_seconds) / median(other.wall_seconds) for each in ours]
            if is_goal:
                table.add_row(other.peer.name, *(_verdict(ratio, goal) for ratio in ratios), f"<= {goal:g}")
            else:
                table.add_row(other.peer.name, *(f"{ratio:.2f}" for ratio in ratios))
    return table


def _verdict(ratio: float, goal: float) -> str:
    return f"{ratio:.2f}" if ratio <= goal else f"[red]{ratio:.2f} missed[/red]"
