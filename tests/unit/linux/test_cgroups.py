# SPDX-License-Identifier: Apache-2.0
"""Cgroups go by their exact name, with what runs in them."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.linux.cgroups import find_cgroups, remove_cgroups

pytestmark = pytest.mark.root

_PLACES = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup/freezer"), Path("/sys/fs/cgroup"))


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of the test's own, of whichever version this host has."""
    above = next(place for place in _PLACES if (place / "cgroup.procs").exists())
    made = above / f"test-{secrets.token_hex(8)}"
    made.mkdir()
    yield made
    if made.exists():
        made.rmdir()


def test_a_cgroup_goes_with_what_runs_in_it(cgroup: Path) -> None:
    """And a second time nothing is there to be done."""
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        (cgroup / "cgroup.procs").write_text(str(sleeper.pid))
        found = find_cgroups(cgroup.name)

        assert remove_cgroups(cgroup.name) is True
        assert sleeper.wait(timeout=60) == -9

    assert cgroup in found
    assert find_cgroups(cgroup.name) == []
    assert remove_cgroups(cgroup.name) is True


def test_one_of_a_longer_name_stays(cgroup: Path) -> None:
    """Whatever runs in it too."""
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        (cgroup / "cgroup.procs").write_text(str(sleeper.pid))

        assert remove_cgroups(cgroup.name[:-1]) is True
        assert sleeper.poll() is None
        os.kill(sleeper.pid, 9)

    assert cgroup.is_dir()
