# SPDX-License-Identifier: Apache-2.0
"""What every command has in common."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run
from worker import __version__
from worker.cli.entry import commands


def test_the_version_is_that_of_the_package(run: Run) -> None:
    """And nothing else is asked for it."""
    assert run("--version").out == f"provisioner, version {__version__}\n"


@pytest.mark.parametrize("name", sorted(commands.commands))
def test_help_works_whatever_the_settings_hold(run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Who reads the help may be looking for what is wrong."""
    monkeypatch.setenv("PROVISIONER_LEASE_SECONDS", "soon")

    shell = run(name, "--help")

    assert shell.code == 0
    assert f"provisioner {name}" in shell.out


@pytest.mark.parametrize("name", sorted({*commands.commands} - {"up", "redis", "run"}))
def test_all_that_print_an_answer_print_it_as_json_too(name: str) -> None:
    """The others print what their programs print."""
    assert "--json" in {option for parameter in commands.commands[name].params for option in parameter.opts}


def test_an_unknown_command_is_a_usage_error(run: Run) -> None:
    """With a list of those there are, one call away."""
    shell = run("explode")

    assert shell.code == 2
    assert "No such command 'explode'" in shell.err


def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    """As in `provisioner --help | true`."""
    program = "import os, sys; os.close(0); from worker.cli import main; main(['--help'])"
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=writer,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[3],
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)

    assert done.stderr == b""
