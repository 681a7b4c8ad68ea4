# SPDX-License-Identifier: Apache-2.0
"""What one warm task costs: Redis commands, system calls, and where its time goes."""

import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import redis
from rich.console import Console
from rich.table import Table

from tests.benchmarks.images import Published
from tests.benchmarks.measuring.profiles import Profile
from tests.benchmarks.measuring.worker import NOOP, PROFILE_VARIABLE, TAKE_PROFILES
from tests.benchmarks.peers import ours
from tests.support.needs import missing_programs
from worker.image import LayerFormat

_ROUNDS = 50
_STRACE_LINE = re.compile(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$")


def print_costs(directory: Path, image: Published, *, layer_format: LayerFormat, console: Console) -> None:
    """Run a node for each kind of question, and print the answers."""
    with _node(directory / "counted", image, layer_format) as node:
        _print_counts(node, image, layer_format, console)
    profile_dir = directory / "profiles"
    profile_dir.mkdir()
    with _node(directory / "profiled", image, layer_format, {PROFILE_VARIABLE: str(profile_dir)}) as node:
        node.call_other(TAKE_PROFILES)
        for act in _acts(node, image).values():
            for number in range(_ROUNDS):
                act(number)
        node.call_other(TAKE_PROFILES)
    for task in ("provisioner.provision", "provisioner.destroy"):
        profile = Profile(profile_dir / f"{task}.prof", rounds=_ROUNDS)
        console.print(profile.kinds_table(f"{task}, {layer_format}: kinds of work"))
        console.print(profile.functions_table(f"{task}, {layer_format}: functions"))


@contextmanager
def _node(
    directory: Path, image: Published, layer_format: LayerFormat, environment: Mapping[str, str] | None = None
) -> Iterator[ours.OurNode]:
    """Run a node that has the image, and a container of it."""
    with ours.running(directory, layer_format=layer_format, environment=environment) as node:
        node.call("provision", container_id="beside", image=image.reference)
        yield node


def _print_counts(node: ours.OurNode, image: Published, layer_format: LayerFormat, console: Console) -> None:
    redis_counts = {name: redis_commands(node, act) for name, act in _acts(node, image).items()}
    console.print(_counts_table(f"Redis commands a task, {layer_format}", redis_counts))
    if (reason := missing_programs("strace")) is None:
        calls = {name: system_calls(node, act) for name, act in _acts(node, image).items()}
        console.print(_counts_table(f"system calls a task in the pool's process, {layer_format}", calls))
    else:
        console.print(f"skipped: system calls: {reason}")


Act = Callable[[int], object]


def _acts(node: ours.OurNode, image: Published) -> Mapping[str, Act]:
    """Return the tasks to look into; each provision is followed by its destroy only after all provisions."""
    return {
        "no-op": lambda _: node.call_other(NOOP),
        "provision": lambda number: node.call("provision", container_id=f"c{number}", image=image.reference),
        "destroy": lambda number: node.call("destroy", container_id=f"c{number}"),
    }


def redis_commands(node: ours.OurNode, act: Act) -> Counter[str]:
    """Count the commands a task makes everybody send, in all its rounds."""
    client: redis.Redis = node.server.client()
    with client:
        client.config_resetstat()
        for number in range(_ROUNDS):
            act(number)
        statistics = client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): each["calls"] for name, each in statistics.items()})


def system_calls(node: ours.OurNode, act: Act) -> Counter[str]:
    """Count the system calls of the process that runs the tasks, in all rounds; strace slows it down meanwhile."""
    command = ["strace", "--summary-only", "--follow-forks", "--attach", str(node.pool_pid())]
    strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert strace.stderr is not None
    while "attached" not in strace.stderr.readline():
        pass
    try:
        for number in range(_ROUNDS):
            act(number)
    finally:
        strace.send_signal(signal.SIGINT)
        summary = strace.stderr.read()
        strace.wait(timeout=20)
        strace.stderr.close()
    matches = filter(None, map(_STRACE_LINE.match, summary.splitlines()))
    return Counter({match[2]: int(match[1]) for match in matches if match[2] != "total"})


def _counts_table(title: str, counts: Mapping[str, Counter[str]]) -> Table:
    table = Table("", *counts, title=title)
    names = sum(counts.values(), Counter[str]())
    for name, _ in names.most_common():
        figures = [counter[name] / _ROUNDS for counter in counts.values()]
        if max(figures) >= 0.5:
            table.add_row(name, *(f"{figure:.1f}" for figure in figures))
    table.add_section()
    table.add_row("all", *(f"{counter.total() / _ROUNDS:.1f}" for counter in counts.values()))
    return table
