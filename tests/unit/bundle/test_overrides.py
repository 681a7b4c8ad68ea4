# SPDX-License-Identifier: Apache-2.0
"""What is asked for at a terminal goes before what the image says, and only that."""

from typing import Any

import pytest

from worker.bundle.config import Root, runtime_config
from worker.bundle.execution import Execution
from worker.bundle.overrides import Overrides, overridden
from worker.bundle.users import ProcessUser


@pytest.fixture
def config() -> dict[str, Any]:
    """An image's configuration."""
    execution = Execution(env=("PATH=/bin", "A=1", "B=2"), args=("/image",), cwd="/image")
    root = Root(path="rootfs", is_read_only=True)
    return runtime_config(execution, user=ProcessUser(uid=5, gid=6), hostname="c", root=root, volumes={})


def test_nothing_asked_for_changes_only_where_the_rootfs_is(config: dict[str, Any]) -> None:
    """The bundle stands elsewhere, the rootfs does not; read-only stays."""
    changed = overridden(config, Overrides(), root_path="/r")

    assert changed == config | {"root": {"path": "/r", "readonly": True}}


def test_what_is_asked_for_replaces(config: dict[str, Any]) -> None:
    """Arguments as a whole, variables by name."""
    overrides = Overrides(args=("/x", "y"), env=("B=3", "C=4"), user=ProcessUser(uid=9, gid=8), cwd="/w")

    process = overridden(config, overrides, root_path="/r")["process"]

    assert process["args"] == ["/x", "y"]
    assert process["env"] == ["PATH=/bin", "A=1", "B=3", "C=4"]
    assert process["user"] == {"uid": 9, "gid": 8}
    assert process["cwd"] == "/w"


def test_a_terminal_has_a_type(config: dict[str, Any]) -> None:
    """Unless it is given."""
    plain = overridden(config, Overrides(has_terminal=True), root_path="/r")["process"]
    given = overridden(config, Overrides(has_terminal=True, env=("TERM=dumb",)), root_path="/r")["process"]

    assert plain["terminal"] is given["terminal"] is True
    assert plain["env"][-1] == "TERM=xterm"
    assert [line for line in given["env"] if line.startswith("TERM=")] == ["TERM=dumb"]


def test_the_hosts_network_is_shared_on_request_only(config: dict[str, Any]) -> None:
    """All other namespaces stay."""
    namespaces = overridden(config, Overrides(has_host_network=True), root_path="/r")["linux"]["namespaces"]

    assert {"type": "network"} in config["linux"]["namespaces"]
    assert namespaces == [each for each in config["linux"]["namespaces"] if each != {"type": "network"}]
