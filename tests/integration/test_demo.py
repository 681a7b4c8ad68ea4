# SPDX-License-Identifier: Apache-2.0
"""The demonstration on real parts: what it shows, and that nothing of it stays, however it ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.images import build_image, layer
from tests.support.layouts import write_layout
from tests.support.mounts import mounts_below
from tests.support.ports import wait_until
from tests.support.tar import Dir, File, Whiteout

MAIN = [sys.executable, "-c", "from worker.cli import main; main()"]
SECONDS = 180.0
OTHER_USER = ["unshare", "--user", "--map-user=65534", "--map-group=65534"]
"""Not root, although this process is: it may read what root's files let root read, and do nothing that root may do."""


def environment(directory: Path) -> dict[str, str]:
    """Return this process's environment with temporary files in `directory` and no settings."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PROVISIONER_")}
    return {**others, "TMPDIR": str(directory), "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def run_demo(directory: Path, *options: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run `provisioner demo` to its end."""
    return subprocess.run(
        [*before, *MAIN, "demo", *options],
        env=environment(directory),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def processes_of(directory: Path) -> list[str]:
    """Return the processes that run in the directory, or with it on their command line or in their environment."""
    marker = str(directory).encode()
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            content = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if marker in content:
            found.append(f"{process.name}: {(process / 'cmdline').read_bytes()!r}")
    return found


def assert_nothing_left(directory: Path) -> None:
    """No file, mount or process of a demonstration is there any more."""
    assert list(directory.iterdir()) == []
    assert mounts_below(directory) == []
    assert processes_of(directory) == []


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where the demonstration makes its directory."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    return directory


@pytest.fixture
def image(tmp_path: Path) -> str:
    """A small image with a whiteout, without any program."""
    base = layer(Dir("etc"), File("etc/motd", b"hello"), File("etc/gone", b"never seen"))
    layout = write_layout(tmp_path / "layout", {"small": build_image([base, layer(Whiteout("etc/gone"))])})
    return f"oci:{layout}:small"


def test_the_packed_python_runs_inside_its_rootfs_and_nothing_is_left(temporary: Path) -> None:
    """The main job end to end, as `make demo` does it."""
    done = run_demo(temporary, "--json")

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert len(document["provision"]["layers"]) == 4
    assert "pi       3.14159265358979" in document["output"]
    assert "hides /etc/build-only" in document["output"]
    assert document["prune"]["stores"][0]["bytes_freed"] > 10_000_000
    assert set(document["left"].values()) == {0}
    assert_nothing_left(temporary)


@pytest.mark.root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs util-linux")
def test_a_user_who_is_not_root_gets_a_copy_and_is_told_that_ownership_is_squashed(temporary: Path) -> None:
    """Without root the same job works, with the copy backend, and says what is given up."""
    done = run_demo(temporary, before=OTHER_USER)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "backend copy of copy" in done.stdout
    assert "ownership is squashed" in done.stdout
    assert "mounts  none needed" in done.stdout
    assert_nothing_left(temporary)


def test_an_image_without_a_shell_is_listed(temporary: Path, image: str) -> None:
    """Any image is shown, even one in which nothing can run."""
    done = run_demo(temporary, "--image", image)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "│ etc/ " in done.stdout
    assert_nothing_left(temporary)


def test_a_failed_step_shows_the_workers_log_and_leaves_nothing(temporary: Path, tmp_path: Path) -> None:
    """The exit code says that it failed, the last line why, and all that was started is stopped."""
    done = run_demo(temporary, "--image", f"oci:{tmp_path / 'nothing'}")

    assert done.returncode == 1
    assert "end of the worker's log" in done.stdout
    assert "ImageNotFound" in done.stdout
    assert done.stderr.startswith(f"error: image oci:{tmp_path / 'nothing'} not found: ")
    assert "Traceback" not in done.stderr
    assert_nothing_left(temporary)


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_the_rootfs_is_mounted_leaves_nothing(
    temporary: Path, image: str, number: signal.Signals
) -> None:
    """Ctrl-C takes the mount down too."""
    # A shell that started the tests in the background has told them to ignore SIGINT.
    command = ["env", "--default-signal=INT", *MAIN, "demo", "--image", image]
    process = subprocess.Popen(
        command,
        env=environment(temporary),
        cwd=temporary,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: bool(mounts_below(temporary)), "a mount", seconds=SECONDS, poll_seconds=0.002)

    process.send_signal(number)
    output, _ = process.communicate(timeout=SECONDS)

    assert process.returncode == 130, output
    assert "stop the worker and Valkey" in output
    assert_nothing_left(temporary)


def test_the_directory_is_kept_when_asked_for(temporary: Path, image: str) -> None:
    """`--keep` leaves the log for whoever wants to read it, but no process and no mount."""
    done = run_demo(temporary, "--image", image, "--keep")

    assert done.returncode == 0, done.stdout + done.stderr
    (kept,) = temporary.iterdir()
    assert "provisioner.provision" in (kept / "worker.log").read_text()
    assert mounts_below(temporary) == []
    assert processes_of(temporary) == []
