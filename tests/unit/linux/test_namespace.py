# SPDX-License-Identifier: Apache-2.0
"""What a process changes for itself stays with it."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mounts import mounts_below
from worker.linux.mount import Mount, mount_filesystem, unmount_tree

_HIDE = """
import sys
from pathlib import Path
from worker.linux.namespace import hide_mount, unshare_mounts
path = Path(sys.argv[1])
unshare_mounts()
hide_mount(path)
hide_mount(path)
hide_mount(path / "missing")
print(list(path.iterdir()))
"""

_MORTAL = """
import os, subprocess, sys, time
from worker.linux.namespace import die_with_parent
parent = os.getpid()
child = subprocess.Popen(["sleep", "1000"], preexec_fn=lambda: die_with_parent(parent))
print(child.pid, flush=True)
time.sleep(1000)
"""

_ORPHAN = """
from worker.linux.namespace import die_with_parent
die_with_parent(1 << 22)
print("alive")
"""


@pytest.mark.root
def test_a_hidden_mount_is_hidden_from_oneself_only(tmp_path: Path) -> None:
    """Also if the mount is shared with others, and a second time."""
    target = tmp_path / "target"
    target.mkdir()
    mount_filesystem(Mount(fs_type="tmpfs", source="tmpfs", target=target))
    subprocess.run(["mount", "--make-shared", target], check=True)
    (target / "file").touch()

    shown = subprocess.run([sys.executable, "-c", _HIDE, target], capture_output=True, text=True, check=True).stdout
    mounts = mounts_below(target)
    unmount_tree(target)

    assert shown == "[]\n"
    assert mounts == [str(target)]


def test_a_child_dies_with_its_parent() -> None:
    """Killed or not, whatever the child does."""
    with subprocess.Popen([sys.executable, "-c", _MORTAL], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()

    ended, _, _ = select.select([child], [], [], 20)
    os.close(child)

    assert ended


def test_a_child_whose_parent_is_gone_dies_at_once() -> None:
    """The parent may have ended before it was asked for."""
    done = subprocess.run([sys.executable, "-c", _ORPHAN], capture_output=True, check=False)

    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b""
