# SPDX-License-Identifier: Apache-2.0
"""Several programs in one terminal: started together, stopped one after the other, their output told apart.

honcho, which runs the Procfile, ends all at once and kills what is left after five seconds: a worker that still
provisions then loses Redis first and its life next. Here each ends before what it needs.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from worker.child_process import ChildProcess
from worker.cli.signals import sigterm_as_interrupt

_POLL_SECONDS = 0.2

ShowLine = Callable[[str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run.

    Attributes:
        name: Shown before each line it prints.
        command: The program and its arguments.
        patience_seconds: How long it may take to end in good order.
    """

    name: str
    command: tuple[str, ...]
    patience_seconds: float = 10.0


def supervise(
    programs: Sequence[Program],
    *,
    environment: Mapping[str, str],
    cwd: Path,
    show_line: ShowLine,
    on_tick: Callable[[], None],
) -> str | None:
    """Run the programs until one of them ends or somebody interrupts; then stop all, the last first.

    A second interrupt kills what is being waited for.

    Args:
        show_line: Called with a program's name and a line it printed, from its own thread.
        on_tick: Called a few times a second.

    Returns:
        The name of the program that ended by itself; None after an interrupt.
    """
    with ExitStack() as stack:
        children = {}
        for program in programs:
            child = ChildProcess(program.command, environment=environment, cwd=cwd)
            child.start()
            reader = _start_reader(child, partial(show_line, program.name))
            stack.callback(_stop, child, reader, patience_seconds=program.patience_seconds)
            children[program.name] = child
        try:
            with sigterm_as_interrupt():
                return _wait_for_end(children, on_tick)
        except KeyboardInterrupt:
            return None


def _wait_for_end(children: Mapping[str, ChildProcess], on_tick: Callable[[], None]) -> str:
    while True:
        for name, child in children.items():
            if not child.is_running:
                return name
        on_tick()
        time.sleep(_POLL_SECONDS)


def _start_reader(child: ChildProcess, show: Callable[[str], None]) -> threading.Thread:
    def read() -> None:
        stream = child.process.stdout
        for line in stream or ():
            show(line.decode(errors="replace").rstrip())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    return reader


def _stop(child: ChildProcess, reader: threading.Thread, *, patience_seconds: float) -> None:
    try:
        child.stop(patience_seconds=patience_seconds)
    except KeyboardInterrupt:
        child.kill()
    reader.join(timeout=1.0)
