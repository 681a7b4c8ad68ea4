# SPDX-License-Identifier: Apache-2.0
"""Several programs in one terminal: started together, stopped one after the other, their output told apart.

honcho, which runs the Procfile, ends all at once and kills what is left after five seconds: a worker that still
provisions then loses Redis first and its life next. Here each ends before what it needs.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

from worker.child_process import ChildProcess
from worker.cli.signals import sigterm_as_interrupt

_POLL_SECONDS = 0.2
_LAST_WORDS_SECONDS = 1.0

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
    running = [_Running(program, environment=environment, cwd=cwd, show_line=show_line) for program in programs]
    with ExitStack() as stack:
        try:
            with sigterm_as_interrupt():
                for each in running:
                    stack.callback(each.stop)
                    each.start()
                return _wait_for_end(running, on_tick)
        except KeyboardInterrupt:
            return None


class _Running:
    """A program with the thread that passes on what it prints."""

    def __init__(self, program: Program, *, environment: Mapping[str, str], cwd: Path, show_line: ShowLine) -> None:
        self.program = program
        self.child = ChildProcess(program.command, environment=environment, cwd=cwd)
        self._reader = threading.Thread(target=self._read, args=(show_line,), daemon=True)

    def start(self) -> None:
        self.child.start()
        self._reader.start()

    def _read(self, show_line: ShowLine) -> None:
        with self.child.process.stdout or nullcontext(()) as lines:
            for line in lines:
                show_line(self.program.name, line.decode(errors="replace").rstrip())

    def stop(self) -> None:
        """Stop it, at once if somebody interrupts again, and show its last words."""
        try:
            self.child.stop(patience_seconds=self.program.patience_seconds)
        except KeyboardInterrupt:
            self.child.kill()
        if self._reader.ident is not None:
            self._reader.join(timeout=_LAST_WORDS_SECONDS)


def _wait_for_end(running: Sequence[_Running], on_tick: Callable[[], None]) -> str:
    while True:
        for each in running:
            if not each.child.is_running:
                return each.program.name
        on_tick()
        time.sleep(_POLL_SECONDS)
