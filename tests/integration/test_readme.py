# SPDX-License-Identifier: Apache-2.0
"""The README's scheduler, taken from the README and run against a real worker."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.images import build_image, layer
from tests.support.layouts import write_layout
from tests.support.tar import Dir, File
from tests.support.workers import REPOSITORY_DIR, running_node

SCHEDULER = re.compile(r"```python\n(# scheduler\.py.*?)```", re.DOTALL)


@pytest.mark.redis
def test_the_scheduler_of_the_readme_provisions_and_destroys(tmp_path: Path, redis_url: str) -> None:
    """Stock Celery and those twenty lines are all a scheduler needs."""
    image = build_image([layer(Dir("bin"), File("bin/app", b"app"))], config={"Cmd": ["/bin/app"]})
    layout = write_layout(tmp_path / "layout", {"app": image})
    found = SCHEDULER.search((REPOSITORY_DIR / "README.md").read_text(encoding="utf-8"))
    assert found is not None
    program = tmp_path / "scheduler" / "scheduler.py"
    program.parent.mkdir()
    program.write_text(found[1])

    with running_node("n1", tmp_path / "n1", redis_url=redis_url):
        done = subprocess.run(
            [sys.executable, program.name, f"oci:{layout}:app"],
            cwd=program.parent,
            env={**os.environ, "PROVISIONER_REDIS_URL": redis_url},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert done.stderr == ""
    node_and_rootfs, command, destroyed = done.stdout.splitlines()
    assert node_and_rootfs.startswith(f"n1 {tmp_path / 'n1' / 'work'}/")
    assert command == "['/bin/app']"
    assert destroyed == "destroyed: True"
