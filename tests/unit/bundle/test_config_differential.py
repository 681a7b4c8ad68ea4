# SPDX-License-Identifier: Apache-2.0
"""umoci, which the image specification's conversion was written after, makes the same of an image."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import build_image, layer
from tests.support.layouts import write_layout
from tests.support.runnable import accounts
from worker.bundle.write import BundlePlan, make_config

pytestmark = [pytest.mark.root, pytest.mark.peer]

CONFIG = {
    "Env": ["A=1", "B=x=y", "PATH=/image"],
    "Entrypoint": ["/entry", "-v"],
    "Cmd": ["serve"],
    "WorkingDir": "/srv/app",
    "ExposedPorts": {"53/udp": {}, "80/tcp": {}},
    "Labels": {"maintainer": "ann", "org.opencontainers.image.title": "x"},
    "StopSignal": "SIGQUIT",
    "Volumes": {"/data": {}, "/cache": {}},
}
USERS = ["", "root", "app", "app:extra", "app:4343", "1000:1000", "1000:extra", "4242", "4242:4343"]
"""Not `1000`: umoci gives a user of that number its supplementary groups, which conversion.md says it should not."""


def _both(directory: Path, config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return umoci's configuration and ours."""
    image = build_image([layer(*accounts())], config=config)
    write_layout(directory / "layout", {"latest": image})
    bundle_dir = directory / "umoci"
    command = ["umoci", "unpack", "--image", f"{directory / 'layout'}:latest", str(bundle_dir)]
    subprocess.run(command, check=True, capture_output=True)
    (directory / "ours").mkdir()
    plan = BundlePlan(
        bundle_dir=directory / "ours",
        rootfs_dir=bundle_dir / "rootfs",
        image="example:1",
        hostname="c1",
        is_read_only=False,
        docker_manifest=json.loads(image.config.content),
        appc_manifest=None,
    )
    return json.loads((bundle_dir / "config.json").read_bytes()), make_config(plan)


@pytest.mark.parametrize("user", USERS)
def test_users_are_the_same(tmp_path: Path, user: str) -> None:
    """Every form that both take to mean the same."""
    theirs, ours = _both(tmp_path, {**CONFIG, "User": user})

    assert ours["process"]["user"] == theirs["process"]["user"]


def test_all_that_an_image_says_is_the_same(tmp_path: Path) -> None:
    """Beside what each adds of its own: umoci a terminal's type, a home, and empty annotations."""
    theirs, ours = _both(tmp_path, CONFIG)

    assert ours["process"]["args"] == theirs["process"]["args"]
    assert ours["process"]["cwd"] == theirs["process"]["cwd"]
    assert set(theirs["process"]["env"]) - set(ours["process"]["env"]) == {"TERM=xterm", "HOME=/root"}
    assert set(ours["process"]["env"]) <= set(theirs["process"]["env"])
    assert _without_empty(ours["annotations"]) == _without_empty(theirs["annotations"])
    assert _volumes(ours) == _volumes(theirs) == {"/data", "/cache"}


def _without_empty(annotations: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in annotations.items() if value}


def _volumes(config: dict[str, Any]) -> set[str]:
    return {each["destination"] for each in config["mounts"]} & {*CONFIG["Volumes"]}
