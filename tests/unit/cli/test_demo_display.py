# SPDX-License-Identifier: Apache-2.0
"""How the demonstration shows itself."""

import io

import pytest
from rich.console import Console

from worker.cli.demo_display import Display


@pytest.fixture
def display() -> Display:
    """A display in a pipe."""
    return Display(Console(file=io.StringIO(), width=100, force_terminal=False))


def lines_of(display: Display) -> list[str]:
    """Return what was shown."""
    return display.console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def test_steps_are_numbered_and_remembered_with_their_time(display: Display) -> None:
    """In the order in which they were done."""
    with display.step("first"):
        display.say("it brought [this]")
    with display.step("second"):
        pass

    shown = lines_of(display)
    assert [line for line in shown if line[:3] in {" 1.", " 2."}] == [" 1. first", " 2. second"]
    assert "    it brought [this]" in shown
    assert [step.step for step in display.steps] == ["first", "second"]


def test_a_step_that_failed_is_marked_and_not_among_those_done(display: Display) -> None:
    """The error goes on."""
    with pytest.raises(RuntimeError), display.step("first"):
        raise RuntimeError

    assert "    ✗ first" in lines_of(display)
    assert display.steps == []


def test_output_is_shown_under_its_command_as_it_is(display: Display) -> None:
    """Brackets are no markup."""
    display.show_output("chroot /r [x]", "[red]hello[/]\n")

    shown = "\n".join(lines_of(display))
    assert "chroot /r [x]" in shown
    assert "[red]hello[/]" in shown


def test_counting_shows_nothing_in_a_pipe(display: Display) -> None:
    """A bar is for eyes."""
    with display.counting("files") as count:
        count(1, 2)

    assert "".join(lines_of(display)).strip() == ""
