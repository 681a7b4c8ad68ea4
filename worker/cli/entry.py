# SPDX-License-Identifier: Apache-2.0
"""The command group, and what every command has in common: errors and exit codes."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from worker import __version__
from worker.cli.demo import demo
from worker.cli.doctor import doctor
from worker.cli.exits import ExitCode, failure_of
from worker.cli.forget import forget
from worker.cli.letters import dead_letters
from worker.cli.output import stderr
from worker.cli.run import run
from worker.cli.up import redis_server, up
from worker.cli.verbs import destroy, provision, prune, pull, recover, verify
from worker.cli.views import du, images, inspect, lock, nodes, ps
from worker.errors import ProvisionerError

_EPILOG = (
    "Exit codes: 0 done; 1 the task failed; 2 the command line or a setting is wrong; 3 nobody answered. "
    "Settings are environment variables, PROVISIONER_*; the README lists them."
)


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="provisioner")
def commands() -> None:
    """Root filesystems for containers: image reference in, mounted rootfs out."""


TASKS = (provision, destroy, prune, recover, pull, verify)
VIEWS = (ps, images, du, inspect, nodes, forget, lock, dead_letters, doctor)

for command in (up, redis_server, demo, run, *TASKS, *VIEWS):
    commands.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code; the entry point of `provisioner`."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal in an old encoding gets question marks instead of a traceback.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        return int(commands.main(args=arguments, prog_name="provisioner", standalone_mode=False) or ExitCode.DONE)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ProvisionerError as error:
        failure = failure_of(error)
        failure.show()
        return failure.exit_code
    except (click.Abort, KeyboardInterrupt):
        stderr.print("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not complain while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
