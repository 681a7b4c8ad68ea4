# SPDX-License-Identifier: Apache-2.0
"""The whole runtime configuration."""

from pathlib import Path
from typing import Any

from worker.bundle.config import Root, runtime_config
from worker.bundle.defaults import SEARCH_PATH
from worker.bundle.execution import Execution
from worker.bundle.users import ProcessUser


def _config(execution: Execution, **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "user": ProcessUser(),
        "hostname": "c1",
        "root": Root(path="rootfs", is_read_only=False),
        "volumes": {},
    }
    return runtime_config(execution, **given | more)


def test_the_process_is_the_images() -> None:
    """Verbatim, and PATH only where the image has none."""
    execution = Execution(env=("A=1",), args=("/x", "y"), cwd="/srv")
    user = ProcessUser(uid=5, gid=6, additional_gids=(7, 8))

    process = _config(execution, user=user)["process"]

    assert process["args"] == ["/x", "y"]
    assert process["cwd"] == "/srv"
    assert process["env"] == [f"PATH={SEARCH_PATH}", "A=1"]
    assert process["user"] == {"uid": 5, "gid": 6, "additionalGids": [7, 8]}
    assert process["noNewPrivileges"] is True
    assert process["terminal"] is False


def test_an_images_path_stays() -> None:
    """A variable that only begins like it is another."""
    assert _config(Execution(env=("PATH=/x", "B=2")))["process"]["env"] == ["PATH=/x", "B=2"]
    assert _config(Execution(env=("PATHS=/x",)))["process"]["env"] == [f"PATH={SEARCH_PATH}", "PATHS=/x"]


def test_an_image_without_a_program_has_no_args() -> None:
    """Whoever runs the bundle must give some."""
    assert "args" not in _config(Execution())["process"]


def test_the_root_is_that_of_the_rootfs() -> None:
    """Read-only as it was provisioned; a host name that a host can have."""
    config = _config(Execution(), root=Root(path="/x/rootfs", is_read_only=True), hostname="h" * 100)

    assert config["root"] == {"path": "/x/rootfs", "readonly": True}
    assert config["hostname"] == "h" * 63


def test_nothing_of_the_host_is_shared_by_default() -> None:
    """Namespaces, capabilities and devices; what is left open would be a decision, not an oversight."""
    config = _config(Execution())

    assert {each["type"] for each in config["linux"]["namespaces"]} == {
        "pid",
        "network",
        "ipc",
        "uts",
        "mount",
        "cgroup",
    }
    assert all("path" not in each for each in config["linux"]["namespaces"])
    assert config["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    capabilities = config["process"]["capabilities"]
    assert set(capabilities) == {"bounding", "effective", "permitted"}
    assert not {"CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_NET_ADMIN", "CAP_NET_RAW"} & set(capabilities["bounding"])
    assert "/proc/kcore" in config["linux"]["maskedPaths"]
    assert "/proc/sys" in config["linux"]["readonlyPaths"]


def test_volumes_are_bound_after_what_every_container_has() -> None:
    """Writable, without set-user-ID programs and devices, and parents before children."""
    volumes = {"/data/sub": Path("/b/volumes/1"), "/data": Path("/b/volumes/0")}

    mounts = _config(Execution(), volumes=volumes)["mounts"]

    assert [each["destination"] for each in mounts[-2:]] == ["/data", "/data/sub"]
    assert [each["source"] for each in mounts[-2:]] == ["/b/volumes/0", "/b/volumes/1"]
    assert {"rw", "nosuid", "nodev"} <= set(mounts[-1]["options"])
    assert mounts[0]["destination"] == "/proc"


def test_a_read_only_volume_refuses_writes() -> None:
    """As an Appc image may say of a mount point; the others stay writable."""
    execution = Execution(volumes=("/data", "/etc/app"), read_only_volumes=frozenset({"/etc/app"}))
    volumes = {"/data": Path("/b/volumes/0"), "/etc/app": Path("/b/volumes/1")}

    writable, read_only = _config(execution, volumes=volumes)["mounts"][-2:]

    assert "rw" in writable["options"]
    assert "ro" in read_only["options"]
    assert "rw" not in read_only["options"]


def test_two_configurations_share_nothing() -> None:
    """Changing one leaves the defaults alone."""
    first = _config(Execution())
    first["mounts"][0]["destination"] = "/changed"
    first["linux"]["resources"]["devices"][0]["allow"] = True
    first["process"]["capabilities"]["bounding"].clear()

    assert _config(Execution()) != first
    assert _config(Execution())["mounts"][0]["destination"] == "/proc"
    assert _config(Execution())["linux"]["resources"]["devices"][0]["allow"] is False
