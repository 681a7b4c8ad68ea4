# SPDX-License-Identifier: Apache-2.0
"""Do something as a user without any privilege, from a test that runs as root."""

import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

NOBODY = 65534


@contextmanager
def nobodys_directory() -> Iterator[Path]:
    """Lend a directory that belongs to nobody and that nobody can reach, unlike pytest's own."""
    with TemporaryDirectory() as directory:
        os.chown(directory, NOBODY, NOBODY)
        yield Path(directory)


def run_as_nobody(function: Callable[[], object]) -> None:
    """Run `function` in a child of that user; its traceback goes to standard error.

    Raises:
        AssertionError: It raised.
    """
    with warnings.catch_warnings():
        # The child runs our code only and leaves by _exit: threads elsewhere in the process do not matter.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _run_and_exit(function)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "the function failed as an unprivileged user; see standard error"


def _run_and_exit(function: Callable[[], object]) -> None:
    code = 0
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        function()
    except BaseException:  # noqa: BLE001 - nothing may return into the test runner's frames
        traceback.print_exc()
        code = 1
    os._exit(code)
