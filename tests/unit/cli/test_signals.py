# SPDX-License-Identifier: Apache-2.0
"""Interrupts and their absence."""

import os
import signal

import pytest

from worker.cli.signals import sigterm_as_interrupt, uninterrupted


def test_sigterm_is_an_interrupt_inside_and_what_it_was_outside() -> None:
    """One way of cleaning up serves Ctrl-C and a service manager."""
    before = signal.getsignal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)

    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_cleaning_up_is_not_interrupted(number: signal.Signals) -> None:
    """Pressing Ctrl-C again does not leave half of it."""
    before = signal.getsignal(number)
    steps = []

    with uninterrupted():
        os.kill(os.getpid(), number)
        steps.append("done")

    assert steps == ["done"]
    assert signal.getsignal(number) == before
